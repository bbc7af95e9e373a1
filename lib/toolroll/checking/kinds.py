"""Kinds of answers, and a checker of one kind: light enough for `--help`, loads what a kind needs when it is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self, get_args

from toolroll.errors import UsageError

if TYPE_CHECKING:
    from toolroll.checking.golden import Golds

Kind = Literal["math", "number", "choice", "exact", "contains"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Ignored = Literal["case", "punctuation", "articles"]
IGNORED: tuple[Ignored, ...] = get_args(Ignored)
Options = Sequence[str] | Mapping[str, str]  #: of a multiple choice: in order, A first; or by their letters
SHOWN_CHARS = 1000  #: of what was taken as the answer


class Checked(NamedTuple):
    """Whether an answer is right.

    correct: 1, 0, or None where there is nothing to compare with. extracted: what was taken as the answer; None if
    nothing was. why: what kept it from being right where that is not plain; why there is no verdict.
    """

    correct: Literal[0, 1] | None
    extracted: str | None
    why: str | None


class NothingFoundError(Exception):
    """A text gives no answer; the message says in what way."""


class Rule(Protocol):
    """What one kind of answers asks."""

    def extract(self, text: str, options: Options | None) -> str:
        """What of a text is its answer. Raises NothingFoundError."""

    def compare(self, answer: str, gold: str, options: Options | None) -> tuple[bool | None, str | None]:
        """Whether an answer means what the right one does; None if that cannot be said. And why."""

    def unreadable(self, gold: str, options: Options | None) -> str | None:
        """Why a right answer cannot be compared with, None if it can."""

    def close(self) -> None:
        """Give back what the rule holds."""


class Checker:
    """Tells of answers of one kind whether they are right. To be closed: it may hold a process."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def __call__(self, text: str, gold: Golds | None, options: Options | None = None) -> Checked:
        """Whether the answer in a model's `text` is `gold`, or one of several that are accepted.

        options: of a multiple choice, if they are known. ToolrollError if the checker itself breaks.
        """
        from toolroll.checking.golden import texts
        from toolroll.checking.parts import said

        golds = [one for one in texts(gold) or () if one.strip()]
        part = said(text)
        try:
            if part is None:
                raise NothingFoundError("the text ends within its thoughts")
            answer = self._rule.extract(part, options)
        except NothingFoundError as error:
            no_verdict = self._unreadable(golds, options)
            return Checked(0, None, str(error)) if no_verdict is None else Checked(None, None, no_verdict)
        shown = answer if len(answer) <= SHOWN_CHARS else answer[:SHOWN_CHARS] + "…"
        if not golds:
            return Checked(None, shown, NO_GOLD)
        correct, why = self._any(answer, golds, options)
        return Checked(None if correct is None else 1 if correct else 0, shown, why)

    check = __call__

    def _unreadable(self, golds: Sequence[str], options: Options | None) -> str | None:
        """Why there is nothing to compare with: whether there is does not depend on what the model said."""
        whys = [self._rule.unreadable(gold, options) for gold in golds]
        return NO_GOLD if not whys else next(filter(None, whys), None)

    def _any(self, answer: str, golds: Sequence[str], options: Options | None) -> tuple[bool | None, str | None]:
        """Whether it is one of several; unknown if it is none of those that can be read, and others cannot."""
        verdict: tuple[bool | None, str | None] = (False, None)
        for gold in golds:
            correct, why = self._rule.compare(answer, gold, options)
            if correct:
                return True, None
            if correct is None or (why is not None and verdict[0] is not None):
                verdict = correct, why
        return verdict

    def close(self) -> None:
        """Give back what it holds."""
        self._rule.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


NO_GOLD = "there is no right answer to compare with"


def checker(
    kind: str,
    *,
    timeout_s: float = 5.0,
    tolerance: float = 0.0,
    ignore: Iterable[Ignored] = ("case", "punctuation"),
) -> Checker:
    """A checker of answers of this kind, one of KINDS.

    timeout_s: math: CPU seconds for one comparison. tolerance: number: relative difference, in [0, 1), that is allowed.
    ignore: exact: what does not count. Raises ToolrollError if a package is missing that the kind needs.

    >>> with checker("number") as check:
    ...     check("That makes 1,200 in all.", 1200), check("I do not know.", 1200)
    (Checked(correct=1, extracted='1,200', why=None), Checked(correct=0, extracted=None, why='there is no number'))
    """
    if kind not in KINDS:
        raise UsageError(f"there is no kind of answers `{kind}`; there are {', '.join(KINDS)}")
    if kind == "math":
        from toolroll.checking.formulas import Formulas

        return Checker(Formulas(timeout_s))
    if kind == "number":
        from toolroll.checking.plain import Numbers

        return Checker(Numbers(tolerance))
    if kind == "choice":
        from toolroll.checking.choice import Choice

        return Checker(Choice())
    from toolroll.checking.plain import Contained, Exact

    return Checker(Exact(frozenset(ignore)) if kind == "exact" else Contained())
