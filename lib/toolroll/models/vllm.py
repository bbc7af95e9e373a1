"""The back end that runs vLLM in this process: continuous batching, and a prefix cache between turns.

Every turn is a request of its own whose prompt is the whole sequence in ids; what earlier turns computed is found in
vLLM's prefix cache, so only what was appended is read. vllm is imported when an engine is made, nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.base import Codec, Completion, Finish, Generate, Message, Sampling, Usage
from toolroll.models.load import weights_id
from toolroll.models.remote_reply import LogprobsMode, exact_logprobs

SETTINGS = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
"""Environment of vLLM where the user has not set it: stdout stays ours, nothing is sent home, and the scheduler runs in
this process, so that the same requests are batched the same way each time."""


@dataclass(slots=True)
class _Sequence:
    """What a sequence has seen, and the completion it waits for."""

    ids: tuple[int, ...] = ()
    waiting: tuple[str, Sampling] | None = None  # request id and how it samples


class VLLMEngine:
    """A `TextEngine` on vLLM's engine.

    model: a Hugging Face folder or hub id. codec: None takes the model's own tokenizer. dtype: "auto" is bfloat16 on
    CUDA and float32 elsewhere. batch_size: sequences in one step, None leaves it to vLLM. max_context: tokens, cut to
    what the model has. logprobs_mode: "processed" gives log-probs at any temperature but not with top-p or top-k,
    "raw" at temperature 0 and 1 only but with both; log-probs that would be something else are None.

    Raises ToolrollError when vllm cannot be imported or cannot load the model.
    """

    def __init__(
        self,
        model: str,
        *,
        codec: Codec | None = None,
        dtype: str = "auto",
        batch_size: int | None = None,
        max_context: int | None = None,
        trust_remote_code: bool = False,
        logprobs_mode: LogprobsMode = "processed",
    ) -> None:
        self.name = f"vllm:{Path(model).name}"
        self.usage = Usage()
        self._logprobs_mode = logprobs_mode
        self._sequences: dict[Hashable, _Sequence] = {}
        self._keys: dict[str, Hashable] = {}
        self._finished: list[tuple[Hashable, Completion | Exception]] = []
        self._count = 0
        with stdout_on_stderr():
            vllm = imported()
            try:
                config = _config(model, trust_remote_code)
                trained = getattr(config.get_text_config(), "max_position_embeddings", None)
                self._engine: Any = _engine(
                    vllm,
                    model=model,
                    dtype=dtype,
                    max_num_seqs=batch_size,
                    max_model_len=min(filter(None, (max_context, trained)), default=None),
                    trust_remote_code=trust_remote_code,
                    logprobs_mode=f"{logprobs_mode}_logprobs",
                )
            except (ValueError, OSError, RuntimeError, vllm.exceptions.VLLMError) as error:
                raise ToolrollError(f"vLLM cannot load it ({_line(error)})", place=model) from error
        self._vllm = vllm
        self.weights_id = weights_id(model, SimpleNamespace(config=config))
        self.max_context: int | None = self._engine.model_config.max_model_len
        self.capacity: int = self._engine.vllm_config.scheduler_config.max_num_seqs
        self.codec: Codec = codec or _own_codec(self._engine.get_tokenizer())

    def submit(self, key: Hashable, request: Generate, *, images: Sequence[Any] = ()) -> None:
        """Append to sequence `key` (new or known) and start a completion of it.

        `images`, PIL images, fill the places in the ids of a new sequence of one turn, a token of the kind that the
        model's processor replaces for each.

        Raises UsageError on a constraint, ToolrollError when `key` is still writing. A sequence as long as
        `max_context` ends at once ("length") with nothing written.
        """
        if request.constraint is not None:
            raise UsageError("the vllm back end cannot constrain what is written: use --backend hf", place=self.name)
        sequence = self._sequences.setdefault(key, _Sequence())
        if sequence.waiting is not None:
            raise ToolrollError("this sequence is still being written", place=str(key))
        sequence.ids += request.ids if request.ids is not None else self.codec.encode(request.text)
        if self.max_context is not None and len(sequence.ids) >= self.max_context:
            self._finished.append((key, Completion("", (), (), "length")))
            return
        self._count += 1
        request_id = str(self._count)
        try:
            self._engine.add_request(request_id, _prompt(sequence.ids, images), self._params(request.sampling))
        except (ValueError, self._vllm.exceptions.VLLMError) as error:
            self._finished.append((key, RowError(_line(error), place=self.name)))
            return
        sequence.waiting = (request_id, request.sampling)
        self._keys[request_id] = key

    def poll(self) -> list[tuple[Hashable, Completion | Exception]]:
        """Run one step of the engine, one token for every sequence under way, and return what has finished."""
        if self._keys and not self._finished:
            for output in self._engine.step():
                if output.finished and output.request_id in self._keys:
                    self._finish(output)
        finished, self._finished = self._finished, []
        return finished

    def score(self, prompt: Sequence[int], answer: Sequence[int], *, images: Sequence[Any] = ()) -> list[float]:
        """Log-probs at temperature 1 of the tokens of `answer` behind `prompt`, images in it as for `submit`.

        Nothing else may be under way. RowError where vLLM refuses.
        """
        self._count += 1
        name = str(self._count)
        params = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=0,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )
        try:
            self._engine.add_request(name, _prompt((*prompt, *answer), images), params)
        except (ValueError, self._vllm.exceptions.VLLMError) as error:
            raise RowError(_line(error), place=self.name) from error
        while not (ended := [one for one in self._engine.step() if one.finished and one.request_id == name]):
            pass
        self.usage.prefilled += len(ended[0].prompt_token_ids)
        last = ended[0].prompt_logprobs[-len(answer) :]
        return [float(step[token].logprob) for token, step in zip(answer, last, strict=True)]

    def release(self, key: Hashable) -> None:
        """Forget sequence `key` and stop its completion; the prefix cache may keep what it read."""
        self._finished = [done for done in self._finished if done[0] != key]
        sequence = self._sequences.pop(key, None)
        if sequence is not None and sequence.waiting is not None:
            del self._keys[sequence.waiting[0]]
            self._engine.abort_request([sequence.waiting[0]])

    def chat(self, requests: Iterable[tuple[Sequence[Message], Sampling]]) -> list[Completion | Exception]:
        """Answer independent conversations, in order; all of them are scheduled at once."""
        answers: dict[Hashable, Completion | Exception | None] = {}
        for messages, sampling in requests:
            key = object()
            answers[key] = None
            self.submit(key, Generate(self.codec.chat(messages), None, sampling))
        others: list[tuple[Hashable, Completion | Exception]] = []
        waiting = len(answers)
        while waiting:
            for key, outcome in self.poll():
                if key in answers:
                    answers[key] = outcome
                    self.release(key)
                    waiting -= 1
                else:
                    others.append((key, outcome))
        self._finished += others
        return [answer for answer in answers.values() if answer is not None]

    def close(self) -> None:
        """Free the model and the memory of the prefix cache; calling it again does nothing."""
        if self._engine is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        self._engine = None
        cleanup_dist_env_and_memory()

    def _params(self, sampling: Sampling) -> Any:
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed % 2**63,
            stop=list(sampling.stop),
            include_stop_str_in_output=True,
            logprobs=0,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _finish(self, output: Any) -> None:
        key = self._keys.pop(output.request_id)
        sequence = self._sequences[key]
        assert sequence.waiting is not None
        sampling = sequence.waiting[1]
        sequence.waiting = None
        written = output.outputs[0]
        ids = tuple(written.token_ids)
        sequence.ids += ids
        reused = output.num_cached_tokens or 0
        self.usage.reused += reused
        self.usage.prefilled += len(output.prompt_token_ids) - reused
        self.usage.generated += len(ids)
        if written.finish_reason not in ("stop", "length"):
            error = RowError(f"vLLM ended the completion with {written.finish_reason!r}", place=self.name)
            self._finished.append((key, error))
            return
        stop = written.stop_reason if isinstance(written.stop_reason, str) else None
        finish: Finish = "length" if written.finish_reason == "length" else "stop" if stop is not None else "eos"
        logprobs = None
        if exact_logprobs(sampling, self._logprobs_mode):
            logprobs = tuple(float(step[token].logprob) for token, step in zip(ids, written.logprobs, strict=True))
        text = self.codec.decode(ids[:-1] if finish == "eos" else ids)
        self._finished.append((key, Completion(text, ids, logprobs, finish, stop)))


def imported() -> Any:
    """The package vllm, with `SETTINGS` where the user set nothing. ToolrollError when it cannot be imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        import vllm.exceptions
        import vllm.sampling_params
    except (ImportError, OSError, RuntimeError) as error:
        raise ToolrollError(
            f"vLLM cannot be imported ({_line(error)}): install toolroll[vllm], or run a vLLM server in an environment "
            "of its own and use --backend openai --base-url URL",
            place="--backend vllm",
        ) from error
    return vllm


def _prompt(ids: Sequence[int], images: Sequence[Any]) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt_token_ids": list(ids)}
    return {**prompt, "multi_modal_data": {"image": list(images)}} if images else prompt


def _engine(vllm: Any, *, dtype: str, **settings: Any) -> Any:
    import torch

    cuda = torch.cuda.is_available()
    automatic = "bfloat16" if cuda else "float32"
    arguments = vllm.EngineArgs(
        dtype=automatic if dtype == "auto" else dtype,
        enforce_eager=not cuda,  # compiling for a CPU takes longer than it saves
        enable_prefix_caching=True,
        disable_log_stats=True,
        **settings,
    )
    return vllm.LLMEngine.from_engine_args(arguments)


def _config(model: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)


def _own_codec(tokenizer: Any) -> Codec:
    from toolroll.models.codec import HFCodec

    return HFCodec(tokenizer)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


@contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """Send what native code prints on file descriptor 1 to stderr: stdout is for records."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
