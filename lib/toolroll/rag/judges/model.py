"""Judges that ask a language model, as the paper does (arXiv:2510.07794, section 3.2).

Over-search: two statements, the step's conclusion and the closed-book answer, and nothing else: do they mean the same?
Under-search: the step alone: is it factually right, and does its conclusion follow from its reasoning? The
instructions are toolroll's own words.

`ChatJudge` lets the model write and reads the last `<answer>`; `ChoiceJudge` lets it write nothing and compares the
log-probabilities of " True" and " False" after the prompt, which needs an engine in this process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from toolroll.errors import UsageError
from toolroll.models.base import Completion, Generate, Message, Sampling
from toolroll.rag.corpus import sanitise
from toolroll.rag.judges.base import ROLES, Case, Finding, Role
from toolroll.rag.judges.reanswer import engine_identity

if TYPE_CHECKING:
    from torch import Tensor

    from toolroll.models.base import TextEngine

__all__ = ["ChatJudge", "ChoiceJudge", "read_boolean"]

MIN_MASS = 0.05

_QUESTION: dict[Role, str] = {
    "over": (
        "Compare two statements. They are equivalent if they give the same information about their subject, whatever "
        "their wording and however much they add around it. They are not if one contradicts the other, leaves open "
        "what the other states, or says that it does not know."
    ),
    "under": (
        "Check one step of an argument. It passes only if both hold: what its reasoning and its conclusion state as "
        "facts is right, and the conclusion follows from the reasoning. Judge the step by itself, without guessing "
        "what it is part of."
    ),
}
_ASKED: dict[Role, str] = {"over": "Are the two statements equivalent?", "under": "Does the step pass?"}
# No whole answer stands in the prompt: a model that repeats it has not judged.
_IN_TAG = "Think if you must, then end with one word, True for yes or False for no, inside <answer> and </answer>."
_IN_WORD = "Reply with one word: True if the reply is yes, False if it is no."
_LEAD = "Answer:"

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOOLEANS = {"true": True, "false": False}


def _messages(case: Case, how: str) -> list[Message]:
    """The conversation that judges a case; texts cannot close or open the tags they stand in."""
    if case.role == "over":
        first, second = sanitise(case.conclusion)[0], sanitise(case.closed_book or "")[0]
        shown = f"Statement 1: {first}\n\nStatement 2: {second}"
    else:
        shown = f"Reasoning: {sanitise(case.reasoning)[0]}\n\nConclusion: {sanitise(case.conclusion)[0]}"
    return [{"role": "user", "content": f"{_QUESTION[case.role]}\n\n{shown}\n\n{_ASKED[case.role]} {how}"}]


def _prompt_hash(how: str) -> str:
    samples = [_messages(Case(role, "c", reasoning="r", closed_book="a"), how)[0]["content"] for role in ROLES]
    return blake2b("\0".join(samples).encode(), digest_size=8).hexdigest()


def read_boolean(reply: str) -> bool | None:
    """What the last `<answer>` of a reply says: True, False, or None if it is neither.

    >>> read_boolean("<answer>True</answer> or rather <answer> false </answer>"), read_boolean("True, I am sure")
    (False, None)
    """
    answers = _ANSWER.findall(reply)
    return _BOOLEANS.get(answers[-1].strip().lower()) if answers else None


def _verdict(case: Case, yes: bool, why: str, raw: str | None = None) -> Finding:
    """`yes` is bad news for a search (it was not needed) and good news for a step without one."""
    bad = yes if case.role == "over" else not yes
    return Finding(case.role if bad else "ok", why, raw)


class ChatJudge:
    """Asks for one boolean inside `<answer>`. max_tokens: the longest reply, in tokens, thinking included."""

    name = "openai"
    roles: frozenset[Role] = frozenset(ROLES)
    recorded = False

    def __init__(self, engine: TextEngine, *, max_tokens: int = 512) -> None:
        self._engine = engine
        self._sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
        self.identity = f"openai/1 {engine_identity(engine)} prompt={_prompt_hash(_IN_TAG)} max_tokens={max_tokens}"

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case; a reply without exactly true or false in its last answer is unknown."""
        replies = self._engine.chat([(_messages(case, _IN_TAG), self._sampling) for case in cases])
        return [self._read(case, reply) for case, reply in zip(cases, replies, strict=True)]

    def close(self) -> None:
        """The engine belongs to whoever opened it."""

    def _read(self, case: Case, reply: Completion | Exception) -> Finding:
        if isinstance(reply, Exception):
            return Finding("unknown", f"the judge failed: {reply}", lasting=False)
        said = read_boolean(reply.text)
        if said is None:
            cut = " (cut off at --judge-tokens)" if reply.finish == "length" else ""
            return Finding("unknown", f"the reply has no true or false in its last <answer>{cut}", reply.text)
        return _verdict(case, said, f"{self._engine.name} says {said}", reply.text)


class _Only:
    """A constraint that permits one token of a vocabulary of `size`, so that the engine tells its log-probability."""

    forced = 0

    def __init__(self, token: int, size: int) -> None:
        self._token = token
        self._size = size

    def allowed(self) -> Tensor:
        """[size] bool, true at the token."""
        import torch

        mask = torch.zeros(self._size, dtype=torch.bool)
        mask[self._token] = True
        return mask

    def advance(self, token: int) -> None:
        """One token is all there is."""

    def inject(self, text: str) -> None:
        """Nothing is injected."""


class ChoiceJudge:
    """Compares log p(" True") and log p(" False") after the prompt: deterministic, nothing is generated.

    The prompt is read once; its second use for the other word copies what was read. min_mass: the least sum of the
    two probabilities, in (0, 1]; below it the model was not going to say either and the case is unknown.
    """

    name = "lm"
    roles: frozenset[Role] = frozenset(ROLES)
    recorded = False

    def __init__(self, engine: TextEngine, *, min_mass: float = MIN_MASS) -> None:
        size = getattr(engine, "vocabulary", None) or getattr(engine, "_vocabulary", None)
        if engine.codec is None or not isinstance(size, int):
            raise UsageError("lm compares log-probabilities, which needs --backend hf", place=engine.name)
        self._engine = engine
        self._min_mass = min_mass
        encode = engine.codec.encode
        words = [
            encode(f"{_LEAD} {word}")[len(encode(_LEAD)) :][:1] or encode(f" {word}")[:1] for word in _BOOLEANS_SAID
        ]
        if words[0] == words[1]:
            raise UsageError("this tokenizer begins True and False with the same token: use another --judge")
        self._choices = [_Only(word[0], size) for word in words]
        self.identity = f"lm/1 {engine_identity(engine)} prompt={_prompt_hash(_IN_WORD)} min_mass={min_mass}"

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case."""
        found: dict[Hashable, Completion | Exception] = {}
        keys = [("judge", id(self), number, word) for number in range(len(cases)) for word in range(2)]
        try:
            for key in keys:
                self._engine.submit(key, self._request(cases[key[2]], key[3]))
            while len(found) < len(keys):
                found.update(self._engine.poll())
        finally:
            for key in keys:
                self._engine.release(key)
        return [
            self._compare(case, *(found["judge", id(self), number, word] for word in range(2)))
            for number, case in enumerate(cases)
        ]

    def close(self) -> None:
        """The engine belongs to whoever opened it."""

    def _request(self, case: Case, word: int) -> Generate:
        assert self._engine.codec is not None
        prompt = self._engine.codec.chat(_messages(case, _IN_WORD)) + _LEAD
        choice: Any = self._choices[word]
        return Generate(prompt, None, Sampling(temperature=0.0, max_tokens=1), choice)

    def _compare(self, case: Case, yes: Completion | Exception, no: Completion | Exception) -> Finding:
        logprobs = list(_logprobs(yes, no))
        for logprob in logprobs:
            if isinstance(logprob, Exception):
                return Finding("unknown", f"the judge failed: {logprob}", lasting=False)
        true, false = (math.exp(logprob) for logprob in logprobs if isinstance(logprob, float))
        told = f"p(True) {true:.3g}, p(False) {false:.3g}"
        if not true + false >= self._min_mass:
            return Finding("unknown", f"{told}: the model would say neither")
        if true == false:
            return Finding("unknown", f"{told}: a tie")
        return _verdict(case, true > false, told)


_BOOLEANS_SAID = ("True", "False")


def _logprobs(*completions: Completion | Exception) -> Iterator[float | Exception]:
    for completion in completions:
        if isinstance(completion, Exception):
            yield completion
        elif completion.logprobs is None or len(completion.logprobs) != 1:
            yield ValueError("the engine tells no log-probability")
        else:
            yield completion.logprobs[0]
