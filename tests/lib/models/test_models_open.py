"""Which back end is opened, and what is said about it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from toolroll.errors import ToolrollError, UsageError
from toolroll.models.base import Completion, Generate, Sampling
from toolroll.models.open import choose_backend, open_text_engine

HEAVY = ("torch", "transformers", "vllm", "httpx2", "numpy", "asyncio")


class Models(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        data = json.dumps({"data": [{"id": "served", "owned_by": "vllm", "max_model_len": 99}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Models) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of two layers with a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    letters = {letter: i for i, letter in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    words = Tokenizer(models.BPE(vocab=letters, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("backend", "base_url", "device", "cuda", "installed", "chosen"),
    [
        ("auto", None, "auto", False, False, "hf"),
        ("auto", None, "auto", False, True, "hf"),
        ("auto", None, "auto", True, False, "hf"),
        ("auto", None, "auto", True, True, "vllm"),
        ("auto", None, "cpu", True, True, "hf"),
        ("auto", "http://h:1", "auto", True, True, "openai"),
        ("openai", "http://h:1", "auto", False, False, "openai"),
        ("vllm", None, "auto", False, False, "vllm"),
        ("scripted", None, "auto", False, False, "scripted"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    base_url: str | None,
    device: str,
    cuda: bool,
    installed: bool,
    chosen: str,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    assert choose_backend(backend, base_url=base_url, device=device) == chosen


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"backend": "hf", "base_url": "http://h:1"}, "asks no server"),
        ({"backend": "openai"}, "needs the address"),
        ({"backend": "ollama"}, "not one of auto, hf"),
        ({"backend": "vllm", "device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_contradictions(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        open_text_engine(**settings)


def test_importing_it_loads_nothing_heavy() -> None:
    code = f"import sys, toolroll.models.open; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_hf(tiny: str) -> None:
    said: list[str] = []
    engine = open_text_engine(model=tiny, device="cpu", batch_size=3, max_context=40, notify=said.append)
    with closing(engine):
        assert (engine.capacity, engine.max_context) == (3, 40)
        assert engine.name.startswith("hf:")
        engine.submit(1, Generate("abc", None, Sampling(max_tokens=5)))
        found: list[Any] = []
        while not found:
            found = engine.poll()
    assert isinstance(found[0][1], Completion)
    assert said[0].startswith(f"model {tiny}; transformers on cpu, float32")


def test_the_embedded_model_is_named_with_what_it_is_good_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolroll.models import load

    def refuse(*_: object, **__: object) -> None:
        raise ToolrollError("not now")

    monkeypatch.setattr(load, "load_causal_lm", refuse)
    said: list[str] = []
    with pytest.raises(ToolrollError, match="not now"):
        open_text_engine(device="cpu", notify=said.append)
    assert "SmolLM2-135M-Instruct, 135M parameters" in said[0]
    assert "not for facts" in said[0]


def test_openai(url: str, tiny: str, tmp_path: Path) -> None:
    said: list[str] = []
    cache = str(tmp_path / "c.db")
    with closing(open_text_engine(base_url=url, concurrency=3, cache=cache, notify=said.append)) as engine:
        assert (engine.name, engine.codec, engine.capacity, engine.max_context) == ("openai:served", None, 3, 99)
    with closing(
        open_text_engine(base_url=url, model="m", tokenizer=tiny, max_context=9, notify=said.append)
    ) as engine:
        assert (engine.name, engine.max_context) == ("openai:m", 9)
        assert engine.codec is not None
        assert engine.codec.decode(engine.codec.encode("héllo")) == "héllo"
    assert said == [
        f"model served at {url}/v1 (vllm), in text: no token ids, no tokenizer was named",
        f"model m at {url}/v1 (vllm), in token ids",
    ]


def test_a_tokenizer_that_is_none(url: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ToolrollError, match=f"{tmp_path}: cannot be loaded as a tokenizer"):
        open_text_engine(base_url=url, tokenizer=str(tmp_path))


def test_scripted(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"match": "capital", "reply": "Paris"}\n')
    said: list[str] = []
    with closing(open_text_engine(backend="scripted", model=str(script), max_context=50, notify=said.append)) as engine:
        (answer,) = engine.chat([([{"role": "user", "content": "The capital?"}], Sampling())])
    assert isinstance(answer, Completion)
    assert answer.text == "Paris"
    assert (engine.max_context, said) == (50, [f"model scripted by {script}"])
