"""Dense retrieval: one vector a passage, cosine as the score, over an index folder.

An encoder is any Hugging Face folder of a BERT-like model (MiniLM, E5): the vector of a text is the mean of the last
layer's token vectors, padding left out, divided by its length. E5 wants the prefixes "query: " and "passage: ".

    DIR/vectors.f32   float32 little-endian [N, D], unit length, one row a passage
    DIR/index.faiss   only when a FAISS index was asked for

The manifest keeps the encoder's folder, prefixes and the vector of a probe sentence, so that another encoder under the
same name is refused. Scores are rounded to six digits: what differs by less is a tie, in the order of the corpus.
"""

import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from toolroll.errors import ToolrollError, UsageError, first_line
from toolroll.rag.corpus import Hit, Passage, contents
from toolroll.rag.index import Corpus, new_index, read_manifest, top_k, write_corpus, write_manifest

Vectors = npt.NDArray[np.float32]

_PROBE = "The quick brown fox jumps over the lazy dog."
_SAME = 0.999  # least cosine of the probe's vectors, then and now
_ROWS = 65_536  # vectors compared at a time


class Encoder:
    """Turns texts into vectors [N, D] of unit length. Safe for several threads, one of which works at a time.

    `model` is a Hugging Face folder or hub id; texts are cut after `max_tokens` or what
    the model can take; `device` is torch's name.
    """

    def __init__(self, model: str, *, max_tokens: int = 256, device: str = "cpu", batch_size: int = 32) -> None:
        from transformers import AutoModel, AutoTokenizer

        from toolroll.models.load import quiet

        try:
            with quiet():
                self._tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
                self._model = AutoModel.from_pretrained(model, trust_remote_code=False).to(device).eval()
        except (OSError, ValueError) as error:
            raise ToolrollError(f"the encoder cannot be loaded ({first_line(error)})", place=model) from error
        self._max_tokens = min(max_tokens, getattr(self._model.config, "max_position_embeddings", max_tokens))
        self._device, self._batch_size = device, batch_size
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """One row a text: the mean over its tokens of the last layer, divided by its length."""
        batches = [texts[start : start + self._batch_size] for start in range(0, len(texts), self._batch_size)]
        with self._lock:
            return np.concatenate([self._encode(list(batch)) for batch in batches])

    def _encode(self, texts: list[str]) -> Vectors:
        import torch

        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        tokens = tokens.to(self._device)
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state.float()  # [B, T, D]
            mask = tokens["attention_mask"].unsqueeze(-1).float()  # [B, T, 1]
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors: Vectors = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()  # [B, D]
        return vectors


def build_dense(
    passages: Iterable[Passage],
    directory: Path,
    *,
    model: str,
    query_prefix: str = "",
    passage_prefix: str = "",
    max_tokens: int = 256,
    faiss: str = "",
    device: str = "cpu",
    batch_size: int = 32,
    replace: bool = False,
) -> dict[str, Any]:
    """Encode `passages` (as `"Title"` newline text) into the folder `directory`; return the index's manifest.

    `faiss` is a FAISS factory string ("Flat", "HNSW64") to have index.faiss made too. Vectors go to disk as they come;
    one batch is in memory. ToolrollError as for `build_bm25`, and for an encoder that cannot be loaded.
    """
    library = _faiss() if faiss else None
    encoder = Encoder(model, max_tokens=max_tokens, device=device, batch_size=batch_size)
    probe = encoder([query_prefix + _PROBE])[0]
    settings = {
        "model": model,
        "query_prefix": query_prefix,
        "passage_prefix": passage_prefix,
        "max_tokens": max_tokens,
        "probe": [round(float(x), 6) for x in probe],
    }
    with new_index(directory, replace=replace) as folder:
        written = write_corpus(folder, passages)
        with (folder / "vectors.f32").open("wb") as file:
            while batch := list(islice(written, batch_size)):
                file.write(encoder([passage_prefix + contents(passage) for passage in batch]).astype("<f4").tobytes())
        manifest = write_manifest(folder, "dense", settings)
        if library is not None:
            vectors = _vectors(folder, manifest["corpus"]["count"], len(probe))
            index = library.index_factory(len(probe), faiss, library.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.add(vectors)
            library.write_index(index, str(folder / "index.faiss"))
    return manifest


class DenseRetriever:
    """Search in a folder that `build_dense` made, by comparing with every vector or, with `faiss`, by its index."""

    def __init__(self, directory: Path, *, faiss: bool = False, device: str = "cpu") -> None:
        directory = Path(directory)
        library = _faiss() if faiss else None
        manifest = read_manifest(directory, "dense")
        try:
            settings = {
                key: manifest["settings"][key] for key in ("model", "query_prefix", "passage_prefix", "max_tokens")
            }
            probe = np.asarray(manifest["settings"]["probe"], dtype=np.float32)
        except (KeyError, ValueError) as error:
            raise ToolrollError(f"the index has unknown settings ({error})", place=str(directory)) from error
        self._prefix = settings["query_prefix"]
        self._vectors = _vectors(directory, manifest["corpus"]["count"], len(probe))
        self._index = _read_faiss(library, directory / "index.faiss") if library is not None else None
        self._encoder = Encoder(settings["model"], max_tokens=settings["max_tokens"], device=device)
        now = self._encoder([self._prefix + _PROBE])[0]
        if now.shape != probe.shape or float(now @ probe) < _SAME:
            raise ToolrollError(f"was made with another encoder than {settings['model']} is now", place=str(directory))
        self._corpus = Corpus(directory)
        kind = "faiss" if faiss else "dense"
        self.name = f"{kind}:{directory}"
        settings_hash = blake2b(orjson.dumps(manifest["settings"]), digest_size=8).hexdigest()
        self.identity = f"{kind}:{manifest['corpus']['blake2b']}:{settings_hash}"

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Up to `topk` (>= 1) hits for each query, best first, ties in the order of the corpus; blank: none."""
        asked = [query for query in queries if query.strip()]
        if not asked:
            return [[] for _ in queries]
        wanted = self._encoder([self._prefix + query for query in asked])
        found = iter(self._by_faiss(wanted, topk) if self._index is not None else self._by_product(wanted, topk))
        return [self._corpus.hits(*next(found)) if query.strip() else [] for query in queries]

    def close(self) -> None:
        """Close the passages."""
        self._corpus.close()

    def _by_product(self, wanted: Vectors, topk: int) -> list[tuple[npt.NDArray[np.intp], Vectors]]:
        """For each row of `wanted` [Q, D] the positions and scores of its best, some rows of the corpus at a time."""
        best = [(np.zeros(0, np.intp), np.zeros(0, np.float32)) for _ in wanted]
        for start in range(0, len(self._vectors), _ROWS):
            scores = np.round(wanted @ self._vectors[start : start + _ROWS].T, 6)  # [Q, rows]
            for row, (positions, kept) in enumerate(best):
                new = top_k(scores[row], topk)
                best[row] = _ranked(np.append(positions, start + new), np.append(kept, scores[row][new]), topk)
        return best

    def _by_faiss(self, wanted: Vectors, topk: int) -> list[tuple[npt.NDArray[np.intp], Vectors]]:
        assert self._index is not None
        scores, positions = self._index.search(wanted, min(topk, len(self._corpus)))  # [Q, k] each; -1: nothing found
        rows = zip(positions, np.round(scores, 6), strict=True)
        return [_ranked(where[where >= 0].astype(np.intp), score[where >= 0], topk) for where, score in rows]


def _ranked(positions: npt.NDArray[np.intp], scores: Vectors, topk: int) -> tuple[npt.NDArray[np.intp], Vectors]:
    order = np.lexsort((positions, -scores))[:topk]
    return positions[order], scores[order]


def _vectors(directory: Path, count: int, width: int) -> Vectors:
    path = directory / "vectors.f32"
    try:
        return np.asarray(np.memmap(path, dtype="<f4", mode="r", shape=(count, width)))
    except (OSError, ValueError) as error:
        raise ToolrollError(f"the index is damaged ({error})", place=str(path)) from error


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UsageError("FAISS is not installed: pip install 'toolroll[faiss]'") from error
    return faiss


def _read_faiss(library: Any, path: Path) -> Any:
    if not path.is_file():
        raise ToolrollError("the index was made without FAISS (rag-index --faiss Flat)", place=str(path))
    try:
        return library.read_index(str(path))
    except RuntimeError as error:
        raise ToolrollError(f"the index is damaged ({str(error).strip()})", place=str(path)) from error
