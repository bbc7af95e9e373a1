"""The tensors that the authors of arXiv:2506.09501 save for each problem, as run records.

Two files make a record: `problem_{i}_{task}_token_ids_bs_{bs}_{dtype}_max_tokens_{m}.pt`, int64 [T, k], the k = 5 most
probable tokens at each position by rank, and `..._logprobs_...pt`, float32 [T, k], their log-probabilities. Decoding
is greedy, so column 0 is what was written. They lie in `outputs/vllm_main/{experiment}/{model}`, those of LayerCast in
`outputs/vllm_layercast/...`; their configuration is in these names and nowhere else.

Only tensors are loaded from them: a pickle that would do anything else is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import PurePath
from typing import Any

import orjson

from toolroll.errors import ToolrollError

_NAME = re.compile(
    r"problem_(?P<i>\d+)_(?P<task>.+)_(?P<kind>token_ids|logprobs)"
    r"_bs_(?P<bs>\d+)_(?P<dtype>[^_]+)_max_tokens_(?P<max>\d+)\.pt"
)
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
_TWIN = {"token_ids": "logprobs", "logprobs": "token_ids"}


def lines(path: str, chunks: Iterator[bytes], given: tuple[str, ...]) -> Iterator[bytes]:
    """The run record of a file and its twin as a line of JSON; of two twins among `given`, the ids' file has it."""
    name = _NAME.fullmatch(PurePath(path).name)
    if name is None:
        why = "no name of the form problem_I_TASK_token_ids_bs_B_DTYPE_max_tokens_M.pt (or _logprobs_)"
        raise ToolrollError(why, place=path)
    kind = name["kind"]
    twin = str(PurePath(path).with_name(_twin_of(PurePath(path).name, kind)))
    if kind == "logprobs" and os.path.normpath(twin) in map(os.path.normpath, given):
        return
    try:
        with open(twin, "rb") as file:
            other = file.read()
    except OSError as error:
        raise ToolrollError(f"its twin {PurePath(twin).name} cannot be read: {error.strerror}", place=path) from error
    tensors = {kind: _tensor(b"".join(chunks), path, kind), _TWIN[kind]: _tensor(other, twin, _TWIN[kind])}
    ids, logs = tensors["token_ids"], tensors["logprobs"]
    if ids.shape != logs.shape:
        raise ToolrollError(f"is {_shape(tensors[kind])}, its twin {_shape(tensors[_TWIN[kind]])}", place=path)
    probabilities = logs.double().exp()
    yield orjson.dumps(
        {
            "id": f"{name['task']}/{name['i']}",
            "config": _config(name, path),
            "tokens": ids[:, 0].tolist(),
            "top1_prob": probabilities[:, 0].tolist(),
            **({"top2_prob": probabilities[:, 1].tolist()} if logs.shape[1] > 1 else {}),
            "n_tokens": len(ids),
        }
    )


def _twin_of(name: str, kind: str) -> str:
    head, _, tail = name.rpartition(f"_{kind}_")
    return f"{head}_{_TWIN[kind]}_{tail}"


def _config(name: re.Match[str], path: str) -> dict[str, Any]:
    """What the names of a file and of the folders above it say of the configuration."""
    config = {
        "precision": _PRECISIONS.get(name["dtype"], name["dtype"]),
        "batch_size": int(name["bs"]),
        "max_tokens": int(name["max"]),
    }
    folder = PurePath(os.path.normpath(path)).parent
    folders = folder.parts
    at = next((i for i, folder in enumerate(folders) if re.fullmatch(r"vllm_\w+", folder)), None)
    if at is not None and len(folders) > at + 2:
        config |= {"experiment": folders[at + 1], "model": "/".join(folders[at + 2 :])}
        if folders[at] == "vllm_layercast" and config["precision"] == "fp32":
            config["precision"] = "layercast"
        return config
    return config | ({"folder": str(folder)} if folders else {})


def _tensor(data: bytes, path: str, kind: str) -> Any:
    """The tensor [T, k] in a file, of the type that its kind has."""
    import torch

    try:
        tensor = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or hostile file raises depends on how it is damaged
        raise ToolrollError("is no file of torch.save with nothing but tensors in it", place=path) from error
    wanted = torch.int64 if kind == "token_ids" else torch.float32
    is_plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not (is_plain and tensor.dtype == wanted and tensor.dim() == 2 and tensor.shape[1] > 0):
        raise ToolrollError(f"holds no {str(wanted).removeprefix('torch.')} tensor [T, k]", place=path)
    if tensor.nbytes > len(data):
        raise ToolrollError(f"says it is {_shape(tensor)}, more than it holds", place=path)
    if kind == "logprobs" and not tensor.isfinite().all():
        where = (~tensor.isfinite()).nonzero()[0].tolist()
        raise ToolrollError(f"has a value that is not finite at {where}", place=path)
    return tensor


def _shape(tensor: Any) -> str:
    return str(list(tensor.shape))
