"""The vLLM back end: what it says without vllm, and, where vllm is installed, a small real model in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.base import Completion, Generate, Sampling

pytestmark = pytest.mark.filterwarnings("default")  # vLLM and what it imports warn of each other

without = importlib.util.find_spec("vllm") is None
needs_vllm = pytest.mark.skipif(without, reason="vllm is not installed")
GREEDY = Sampling(temperature=0, max_tokens=20, stop=(" blue", " green"))
LONG = " ".join(f"fact {i} is known;" for i in range(60)) + " The three colours are: red,"


@pytest.mark.skipif(not without, reason="vllm is installed")
def test_without_vllm_the_way_out_is_named() -> None:
    from toolroll.models.vllm import VLLMEngine

    with pytest.raises(ToolrollError, match=r"toolroll\[vllm\].*--backend openai --base-url"):
        VLLMEngine("embedded")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from toolroll.models.open import open_text_engine

    engine = open_text_engine(backend="vllm", max_context=1024)
    yield engine
    engine.close()
    engine.close()


def finish(engine: Any, *keys: object) -> list[Any]:
    found: dict[object, Any] = {}
    while set(found) < set(keys):
        found.update(engine.poll())
    return [found[key] for key in keys]


def ask(engine: Any, key: object, text: str, sampling: Sampling = GREEDY) -> Any:
    engine.submit(key, Generate(text, None, sampling))
    return finish(engine, key)[0]


@needs_vllm
@pytest.mark.model
class TestReal:
    def test_turns_share_what_was_read(self, engine: Any) -> None:
        first = ask(engine, "q", LONG)
        assert (first.text, first.finish, first.stop) == (" blue", "stop", " blue")
        before = engine.usage.reused
        second = ask(engine, "q", " and then")
        assert engine.usage.reused - before >= 256
        assert len(second.ids) == len(second.logprobs) > 0
        assert all(logprob <= 0 for logprob in second.logprobs)
        assert engine.codec.decode(second.ids) == second.text

    def test_same_seed_same_draw_whatever_else_is_under_way(self, engine: Any) -> None:
        sampling = Sampling(max_tokens=8, seed=5)
        alone = ask(engine, object(), "Once upon a time", sampling)
        keys = [object() for _ in range(4)]
        for number, key in enumerate(keys):
            engine.submit(key, Generate("Once upon a time", None, Sampling(max_tokens=8, seed=number + 2)))
        among = finish(engine, *keys)
        assert among[3].ids == alone.ids
        assert among[0].ids != alone.ids

    @pytest.mark.parametrize(
        ("sampling", "given"), [(Sampling(0.7, max_tokens=4), True), (Sampling(1.0, 0.9, max_tokens=4), False)]
    )
    def test_logprobs_are_those_of_the_draw_or_none(self, engine: Any, sampling: Sampling, given: bool) -> None:
        answer = ask(engine, object(), "Count: 1, 2, 3,", sampling)
        assert (answer.logprobs is not None) == given

    def test_chat_leaves_other_sequences_alone(self, engine: Any) -> None:
        engine.submit("other", Generate("Count: 1, 2,", None, Sampling(temperature=0, max_tokens=2)))
        asked = [([{"role": "user", "content": f"Say {word}"}], Sampling(max_tokens=60)) for word in ("yes", "no")]
        answers = engine.chat(asked)
        assert [type(answer) for answer in answers] == [Completion, Completion]
        assert all((answer.ids[-1] in engine.codec.eos_ids) == (answer.finish == "eos") for answer in answers)
        (other,) = finish(engine, "other")
        assert other.finish == "length"
        assert len(other.ids) == 2

    def test_a_prompt_that_fills_the_context(self, engine: Any) -> None:
        assert ask(engine, object(), "x " * 3000) == Completion("", (), (), "length")

    def test_refused_requests_are_rows(self, engine: Any) -> None:
        assert isinstance(ask(engine, "bad", "Count", Sampling(top_p=7)), RowError)
        assert isinstance(ask(engine, "bad", " to three"), Completion)

    def test_misuse_and_release(self, engine: Any) -> None:
        constraint: Any = object()
        with pytest.raises(UsageError, match="--backend hf"):
            engine.submit("c", Generate("a", None, GREEDY, constraint))
        engine.submit("gone", Generate("a", None, GREEDY))
        with pytest.raises(ToolrollError, match="still being written"):
            engine.submit("gone", Generate("a", None, GREEDY))
        engine.poll()
        engine.release("gone")
        engine.release("gone")
        assert engine.poll() == []

    def test_names(self, engine: Any) -> None:
        assert engine.name.startswith("vllm:SmolLM2-135M-Instruct")
        assert len(engine.weights_id) == 16
        assert engine.max_context == 1024
