"""Text generation with a transformers model in this process, many sequences at a time.

Every `poll` is one forward pass over whatever there is to read: one token for each sequence that is being
written, and as many tokens of new prompts and injected passages as the budget allows. Sequences enter and
leave between passes. What has been read stays in the slots (see `slots`): a later turn reads only what was
appended, and a prompt that begins like another one copies that part. Memory running out halves the batch.

An engine belongs to one thread, and its model to the engine: the attention of the model is replaced.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Completion, Finish, Generate, Message, Sampling, Usage
from toolroll.models.codec import HFCodec
from toolroll.models.device import is_out_of_memory
from toolroll.models.load import Loaded, load_causal_lm
from toolroll.models.sampling import StopWatch, sample
from toolroll.models.slot_rows import Line, RowTable, Turn, common_prefix
from toolroll.models.slots import ATTENTION, Packing, Slots, Stretch

_LEAST_GAIN = 16  # tokens: wait for another prompt to be read when at least so many more could then be copied
_LEAST_CHUNK = 64  # tokens
_LAYERS = {"full_attention", "sliding_attention"}


class HFEngine:
    """A `TextEngine` on a causal language model that `load_causal_lm` has loaded.

    `batch`: sequences written at once (32 on the CPU, 64 on a GPU when None); the engine halves it when memory runs
    out and tells `notify`. `max_context`: tokens, at most (and when None) what the model was trained for. `chunk`:
    new tokens read in one pass (512 on the CPU, 4096 on a GPU when None). Raises ToolrollError for a model whose
    layers it cannot run.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        batch: int | None = None,
        max_context: int | None = None,
        chunk: int | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        on_gpu = loaded.device.is_cuda
        self.codec: HFCodec = loaded.codec
        self.usage = Usage()
        self.capacity = batch or (64 if on_gpu else 32)
        self._notify = notify
        self.device = loaded.device
        self._batch = self.capacity
        self._full_chunk = self._chunk = chunk or (4096 if on_gpu else 512)
        self._model = _prepared(loaded)
        self._learn(loaded)
        trained = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        self.max_context: int | None = min(filter(None, (max_context, trained)), default=None)
        self._nothing_masked = torch.zeros(1, 1, 1, 1, device=loaded.device.name)
        self._rows = RowTable(Slots(torch.device(loaded.device.name), self.max_context), self._most_rows())
        self._lines: dict[Hashable, Line] = {}
        self._active: dict[Hashable, Line] = {}
        self._done: list[tuple[Hashable, Completion | Exception]] = []

    def submit(self, key: Hashable, request: Generate) -> None:
        """Append to sequence `key` (new or known) and start a completion of it.

        A request that cannot be worked on fails at the next `poll`. Raises ToolrollError when `key` is still writing.
        """
        line = self._lines.setdefault(key, Line(key))
        if line.turn is not None:
            raise ToolrollError("this sequence is still being written", place=str(key))
        self.usage.reused += line.cached
        new = self.codec.encode(request.text) if request.ids is None else request.ids
        if new and not 0 <= min(new) <= max(new) < self._vocabulary:
            self._done.append((key, RowError(f"a token id is outside 0..{self._vocabulary - 1}")))
            return
        line.ids.extend(new)
        if not line.ids:
            self._done.append((key, RowError("there is no text to continue")))
            return
        watch = StopWatch(self.codec, request.sampling.stop)
        line.turn = Turn(request.sampling, request.constraint, watch, len(line.ids))
        self._active[key] = line
        if self.max_context is not None and len(line.ids) >= self.max_context:
            self._finish(line, "length", None)

    def poll(self) -> list[tuple[Hashable, Completion | Exception]]:
        """Run the model once, return what finished; an exception belongs to its sequence only."""
        if self._active:
            try:
                exhausted = False
                with torch.inference_mode():
                    self._step()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                exhausted = True
            if exhausted:  # here, where the exception no longer holds the tensors of the failed pass
                self._shrink()
        done, self._done = self._done, []
        return done

    def release(self, key: Hashable) -> None:
        """Forget sequence `key`; its row stays as a prefix for others until it is needed."""
        self._active.pop(key, None)
        line = self._lines.pop(key, None)
        if line is not None:
            self._rows.release(line)

    def chat(self, requests: Iterable[tuple[Sequence[Message], Sampling]]) -> list[Completion | Exception]:
        """Answer independent conversations, in order. Other sequences under way go on meanwhile."""
        answers: dict[Hashable, Completion | Exception] = {}
        others: list[tuple[Hashable, Completion | Exception]] = []
        keys: list[Hashable] = []
        for messages, sampling in requests:
            key = (self, len(keys))
            keys.append(key)
            self.submit(key, Generate(self.codec.chat(messages), None, sampling))
        waiting = set(keys)
        while waiting:
            for done, result in self.poll():
                if done in waiting:
                    answers[done] = result
                    waiting.remove(done)
                    self.release(done)
                else:
                    others.append((done, result))
        self._done = others + self._done
        return [answers[key] for key in keys]

    def reload(self, path: str | Path) -> None:
        """Go on with the weights in folder `path`, of the same tokenizer; whatever was read is read anew when needed.

        Not while a completion is under way (ToolrollError). When it fails, the engine goes on with the old weights: the
        new ones are loaded beside them in the memory of the CPU, and a GPU holds one of the two at a time.
        """
        if self._active:
            raise ToolrollError("sequences are being written with the old weights", place=str(path))
        loaded = load_causal_lm(str(path), replace(self.device, name="cpu"))
        new = _prepared(loaded)
        self._rows.clear()
        if self.device.is_cuda:
            self._model.to("cpu")
        try:
            new.to(self.device.name)
        except RuntimeError:
            new.to("cpu")
            self._model.to(self.device.name)
            raise
        self._model = new
        self._learn(loaded)
        gc.collect()

    def close(self) -> None:
        """Free the model and everything read."""
        self._rows.clear()
        self._lines.clear()
        self._active.clear()
        self._model = None
        gc.collect()

    def _learn(self, loaded: Loaded) -> None:
        """Note what the engine has to know of its model."""
        self.name = f"hf:{loaded.name}"
        self.weights_id = loaded.weights_id
        self._layers: int = loaded.model.config.get_text_config().num_hidden_layers
        self._vocabulary: int = loaded.model.get_input_embeddings().num_embeddings

    def _most_rows(self) -> int:
        return self._batch + self._batch // 4  # the rest is for sequences that wait for somebody else

    def _step(self) -> None:
        """Read one pass worth of tokens, draw the next token of each line that has no more to read."""
        self._admit()
        steps: list[Line] = []
        parts: list[tuple[Line, int]] = []
        budget = self._chunk
        for line in [line for line in self._active.values() if line.row is not None][: self._batch]:
            if line.pending == 1:
                steps.append(line)
            elif budget:
                parts.append((line, min(budget, line.pending)))
                budget -= parts[-1][1]
        if not steps and not parts:
            return
        self._rows.compact(steps)
        work = [*((line, 1) for line in steps), *parts]
        drawing = [line for line, size in work if size == line.pending]
        turns = [line.turn for line in drawing if line.turn is not None]
        logits = self._forward(steps, work)
        allowed = [None if turn.constraint is None else turn.constraint.allowed() for turn in turns]
        tokens, logprobs = sample(logits, [t.sampling for t in turns], [len(t.logprobs) for t in turns], allowed)
        for line, size in work:
            self.usage.prefilled += size - line.unread
            line.cached += size
            line.unread = False
        for line, token, logprob in zip(drawing, tokens, logprobs, strict=True):
            self._accept(line, token, logprob)

    def _admit(self) -> None:
        """Give rows to lines that wait for one, as many as may be written at once."""
        placed = [line for line in self._active.values() if line.row is not None]
        reading = [line for line in placed if line.pending > 1]
        for line in [line for line in self._active.values() if line.row is None]:
            if len(placed) >= self._batch:
                break
            if any(_gain(line, other) >= _LEAST_GAIN for other in reading):
                continue
            reused = self._rows.place(line)
            if reused is None:
                break
            self.usage.reused += reused
            placed.append(line)
            reading.append(line)

    def _forward(self, steps: list[Line], work: list[tuple[Line, int]]) -> torch.Tensor:
        """Logits [n, V] for the lines that this pass reads to their end; `work` is `steps`, then stretches."""
        self._rows.reserve(max(line.cached + size for line, size in work))
        ids: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        stretches: list[Stretch] = []
        for line, size in work:
            begin = len(ids)
            ids += line.ids[line.cached : line.cached + size]
            positions += range(line.cached, line.cached + size)
            if begin >= len(steps):
                stretches.append(Stretch(begin, len(ids), _row_of(line), line.cached))
            if size == line.pending:
                ends.append(len(ids) - 1)
        packing = Packing(
            self._rows.slots, [_row_of(line) for line in steps], [line.cached for line in steps], stretches
        )
        at = self.device.name
        logits: torch.Tensor = self._model(
            input_ids=torch.tensor([ids], device=at),
            position_ids=torch.tensor([positions], device=at),
            attention_mask=self._nothing_masked,
            use_cache=False,
            logits_to_keep=torch.tensor(ends, dtype=torch.int64, device=at),
            packing=packing,
        ).logits[0]
        if len(packing.seen) != self._layers:
            raise ToolrollError("not all of its layers keep their keys and values in the slots", place=self.name)
        return logits

    def _accept(self, line: Line, token: int, logprob: float) -> None:
        turn = line.turn
        assert turn is not None
        if not math.isfinite(logprob):
            self._fail(line, "the model's output is not a number")
            return
        line.ids.append(token)
        line.unread = True
        turn.logprobs.append(logprob)
        self.usage.generated += 1
        if turn.constraint is not None:
            turn.constraint.advance(token)
        stop = turn.watch.push(token)
        if token in self.codec.eos_ids:
            self._finish(line, "eos", None)
        elif stop is not None:
            self._finish(line, "stop", stop)
        elif len(turn.logprobs) >= turn.sampling.max_tokens or len(line.ids) == self.max_context:
            self._finish(line, "length", None)

    def _finish(self, line: Line, finish: Finish, stop: str | None) -> None:
        turn = line.turn
        assert turn is not None
        ids = tuple(line.ids[turn.begin :])
        text = self.codec.decode(ids[:-1] if finish == "eos" else ids)
        self._end_turn(line, Completion(text, ids, tuple(turn.logprobs), finish, stop))

    def _fail(self, line: Line, why: str) -> None:
        self._end_turn(line, RowError(why))

    def _end_turn(self, line: Line, result: Completion | Exception) -> None:
        line.turn = None
        del self._active[line.key]
        self._done.append((line.key, result))

    def _shrink(self) -> None:
        """Memory ran out: forget everything read, go on with half the batch, or without a sequence too long for it."""
        self._rows.clear()
        gc.collect()
        if self.device.is_cuda:
            torch.cuda.empty_cache()
        if self._batch == 1 and self._chunk <= _LEAST_CHUNK:
            line = next(iter(self._active.values()))
            self._fail(line, f"out of memory with this sequence alone ({len(line.ids)} tokens)")
            self._batch, self._chunk = self.capacity, self._full_chunk
        else:
            before, self._batch = self._batch, max(1, self._batch // 2)
            self._chunk = max(_LEAST_CHUNK, self._chunk // 2)
            self._notify(f"out of memory with {before} sequences at once, going on with {self._batch}")
        self._rows.limit = self._most_rows()


def _prepared(loaded: Loaded) -> Any:
    """The model of `loaded` with slot attention; ToolrollError when its layers are of another kind."""
    model, place = loaded.model, loaded.name
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= _LAYERS:
        raise ToolrollError(f"layers of the kind {', '.join(sorted(kinds - _LAYERS))} are not supported", place=place)
    if model.config.is_encoder_decoder or getattr(model, "_is_stateful", False):
        raise ToolrollError("only decoders with attention in every layer are supported", place=place)
    if getattr(config, "attn_logit_softcapping", None) or getattr(config, "num_kv_shared_layers", 0):
        raise ToolrollError("soft-capped attention and layers that share keys are not supported", place=place)
    if not getattr(model, "_supports_attention_backend", False):
        raise ToolrollError("transformers does not let the attention of this model be replaced", place=place)
    model.set_attn_implementation(ATTENTION)
    return model


def _gain(line: Line, other: Line) -> int:
    """How many more tokens `line` could copy from `other` once `other` has been read to its end."""
    return common_prefix(line.ids, other.ids, len(line.ids) - 1) - other.cached


def _row_of(line: Line) -> int:
    assert line.row is not None
    return line.row
