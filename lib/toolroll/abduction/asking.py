"""Eliciting hypotheses about one problem: ask, test the reply, ask for another, until the stop rule says so.

The conversation only grows: what the model wrote stays in it token by token, and the next message is put behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, TypeAlias

from toolroll.abduction.cases import Case, Parser
from toolroll.abduction.parse import Reply
from toolroll.abduction.prompts import Prompts
from toolroll.abduction.stop import Judgement, StopRule
from toolroll.abduction.trial import Trial
from toolroll.errors import RowError
from toolroll.io.rows import clean
from toolroll.models.base import Codec, Completion, Generate, Message, Sampling
from toolroll.models.rollouts import Transcript
from toolroll.run.seeds import record_seed

__all__ = ["Asking", "Manner", "Try", "seam", "try_all"]

MARK = "\x02the reply\x03"  #: stands for a reply where a chat template is asked what comes behind one
FINISH = {"stop": "stop", "eos": "eos", "length": "token_limit"}
Chat: TypeAlias = Callable[[list[Message]], str]


@dataclass(frozen=True, slots=True)
class Try:
    """An effect of an episode: test a hypothesis. Its result is a Trial."""

    case: Case
    reply: Reply


def try_all(effects: Sequence[Try]) -> list[Trial | Exception]:
    """Resolve `Try` effects, several at once."""
    futures = [effect.case.begin(effect.reply) for effect in effects]
    wait(futures)
    found: list[Trial | Exception] = []
    for future in futures:
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        found.append(future.result() if error is None else error)
    return found


def seam(chat: Chat, messages: list[Message], following: Message) -> str:
    """What stands between a reply to `messages` and the reply to `following`, as the chat template has it.

    Raises RowError for a template that does not write replies as they are.

    >>> lines = lambda messages: "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"
    >>> seam(lines, [{"role": "user", "content": "one?"}], {"role": "user", "content": "two?"})
    '<user>two?<assistant>'
    """
    _, mark, behind = chat([*messages, {"role": "assistant", "content": MARK}, following]).rpartition(MARK)
    if not mark:
        raise RowError("the chat template does not write an earlier reply as it is")
    return behind


@dataclass(frozen=True, slots=True)
class Manner:
    """How all problems of a run are asked about.

    chat: text of messages. prefill: what each reply begins with, not written by the model. reply_tokens: longest reply.
    context: longest sequence in tokens, if known.
    """

    prompts: Prompts
    rule: StopRule
    parse: Parser
    chat: Chat
    codec: Codec | None
    prefill: str = ""
    reply_tokens: int = 1024
    context: int | None = None


class Asking:
    """One conversation about one problem; `episode()` runs it on any engine. `fields()` is what came of it so far."""

    def __init__(self, manner: Manner, case: Case, fields: dict[str, Any], sampling: Sampling) -> None:
        self.manner = manner
        self.case = case
        self.sampling = sampling
        self.transcript = Transcript()
        self.hypotheses: list[dict[str, Any]] = []
        self.judged: list[Judgement] = []
        self.stop = "error"
        self.messages = manner.prompts.first(case.problem.observations, fields)
        self.prompt = manner.chat(self.messages)
        self.prompt_ids = self._encode(self.prompt)
        self._seen: list[Any] = []  # [S] outputs of each hypothesis that ran

    def episode(self) -> Generator[Any, Any, dict[str, Any]]:
        """Ask until the rule, or the room there is, says stop; the result is `fields()`."""
        given = self.prompt, self.prompt_ids
        if not self._fits(self.prompt_ids):
            raise RowError(f"the prompt has {len(self.prompt_ids or ())} tokens; the longest sequence has {self._most}")
        while True:
            completion: Completion = yield self._ask(*given)
            begin = len(self.transcript.ids or ())
            self.transcript.write(completion)
            said = self.manner.prefill + completion.text
            reply = self.manner.parse(said)
            trial: Trial = yield Try(self.case, reply)
            self._note(said, reply, trial, completion, begin)
            if reason := self._over():
                self.stop = reason
                return self.fields()
            given = self._further(completion)
            if not self._fits(given[1]):
                self.stop = "token_limit"
                return self.fields()
            self.transcript.inject(*given)

    def fields(self) -> dict[str, Any]:
        """What was heard so far, as fields of a row."""
        return {
            "hypotheses": self.hypotheses,
            "stop": self.stop,
            "followup": self.manner.prompts.style,
            "prompt": self.prompt,
            "response": self.transcript.text,
            **self.transcript.fields(self.prompt_ids),
        }

    def _ask(self, text: str, ids: tuple[int, ...] | None) -> Generate:
        sampling = Sampling(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            max_tokens=self.manner.reply_tokens,
            stop=self.sampling.stop,
            seed=record_seed(self.sampling.seed, len(self.hypotheses)),
        )
        begun = self._encode(self.manner.prefill)
        self.transcript.inject(self.manner.prefill, begun)
        joined = None if ids is None or begun is None else (*ids, *begun)
        return Generate(text + self.manner.prefill, joined, sampling)

    def _note(self, said: str, reply: Reply, trial: Trial, completion: Completion, begin: int) -> None:
        """Judge a hypothesis, and keep it."""
        new = self._new(trial)
        judgement = Judgement(
            parsed=trial.ran,
            consistent=trial.status != "inconsistent",
            new_frac=new / self.case.size,
            lookup=trial.status == "lookup",
        )
        self.judged.append(judgement)
        end = len(self.transcript.ids or ())
        self.hypotheses.append(
            {
                "text": _whole(reply.text),
                "code": None if reply.code is None else _whole(reply.code),
                "reply": said,
                "status": trial.status,
                "why": clean(trial.why),
                "new": new,
                "bad": self.manner.rule.faults(judgement),
                "finish": FINISH[completion.finish],
                "span": None if self.transcript.ids is None else [begin, end],
            }
        )

    def _new(self, trial: Trial) -> int:
        """At how many inputs of the space it predicts what none before it did."""
        if trial.ids is None:
            return 0
        fresh = trial.ids >= 0
        for earlier in self._seen:
            fresh &= earlier != trial.ids
        self._seen.append(trial.ids)
        return int(fresh.sum())

    def _over(self) -> str | None:
        rule = self.manner.rule
        if rule.stops_after(self.judged) is None:
            return None
        bad = sum(bool(rule.faults(one)) for one in self.judged)
        return "bad" if bad >= rule.max_bad and len(self.judged) >= rule.least else "cap"

    def _further(self, completion: Completion) -> tuple[str, tuple[int, ...] | None]:
        """What comes behind a reply: the end of the turn, the next message, the beginning of the next turn."""
        following = self.manner.prompts.again(len(self.hypotheses), self.case.problem.observations)
        text = seam(self.manner.chat, self.messages, following)
        ids = self._encode(text)
        if ids and completion.finish == "eos" and completion.ids and completion.ids[-1] == ids[0]:
            ids = ids[1:]  # the model has ended its turn itself
        return text, ids

    @property
    def _most(self) -> int | None:
        return self.manner.context

    def _fits(self, new: Sequence[int] | None) -> bool:
        """Whether there is room for these tokens, the prefill, and one that the model writes."""
        if self._most is None or new is None or self.transcript.ids is None:
            return True
        before = len(self.transcript.ids) + (len(self.prompt_ids or ()) if new is not self.prompt_ids else 0)
        return before + len(new) + len(self._encode(self.manner.prefill) or ()) < self._most

    def _encode(self, text: str) -> tuple[int, ...] | None:
        codec = self.manner.codec
        return None if codec is None else codec.encode(text)


def _whole(text: str) -> str:
    """Text without lone surrogates, which JSON text cannot hold."""
    return text.encode(errors="replace").decode()
