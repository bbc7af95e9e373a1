"""What a judge is asked and what it answers.

A judge looks at one step of a trajectory (arXiv:2510.07794, section 3.2): was a search needed (role `over`), does a
step without a search hold (role `under`)? A verdict has three values. Whatever goes wrong, missing material, a server
that is down, a reply that cannot be read, is `unknown` with the reason, never `ok`: the released code pays the full
bonus when its judge is out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, Protocol

from toolroll.errors import Stopped, ToolrollError, UsageError

__all__ = ["NO_ANSWER", "ROLES", "Case", "Finding", "Judge", "Role", "Verdict", "ask", "text_key"]

Role = Literal["over", "under"]
Verdict = Literal["ok", "over", "under", "unknown"]
ROLES: tuple[Role, Role] = ("over", "under")

NO_ANSWER = "no closed-book answer (rag-rollout --closed-book, or step-reward --reanswer)"


@dataclass(frozen=True, slots=True)
class Case:
    """One step to judge.

    role: `over` for a search step, `under` for one without. closed_book: what the policy says to the query alone;
    `missing` says why there is none. given: the verdict the row has already. id, sample and step name the step. The
    question of the trajectory is not here: the paper's judges do not see it.
    """

    role: Role
    conclusion: str
    reasoning: str = ""
    query: str = ""
    closed_book: str | None = None
    missing: str = NO_ANSWER
    given: str | None = None
    id: str | int = ""
    sample: int = 0
    step: int = 0

    @property
    def step_text(self) -> str:
        """The step as the verifier of the paper sees it: its own text, nothing before and nothing after."""
        return f"<reasoning> {self.reasoning} </reasoning>\n<conclusion> {self.conclusion} </conclusion>"

    @property
    def other(self) -> str:
        """What the conclusion is held against: the closed-book answer, or the text of the step itself."""
        return (self.closed_book or "") if self.role == "over" else self.step_text

    @property
    def lacks(self) -> str | None:
        """Why the step cannot be judged by any text, None if it can."""
        if not self.conclusion.strip():
            return "the step has no conclusion"
        return self.missing if self.role == "over" and self.closed_book is None else None


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, what it rests on in a few words, and a model's reply in its own words if it gave one.

    lasting: whether the same case will always be found the same, so that the finding may be kept on disk.
    """

    verdict: Verdict
    why: str
    raw: str | None = None
    lasting: bool = True


class Judge(Protocol):
    """Judges batches of cases.

    `name` is what --judge calls it. `identity` names everything its verdicts depend on but the case: version, model
    and weights, prompt, thresholds. `roles` are the questions it can answer. One that only looks verdicts up
    (`recorded`) gets cases that lack their material too, and what it says is not kept in a cache.
    """

    name: str
    identity: str
    roles: frozenset[Role]
    recorded: bool

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case, in order."""

    def close(self) -> None:
        """Free what it holds."""


def ask(judge: Judge, cases: Sequence[Case]) -> list[Finding]:
    """The judge's findings; whatever it cannot or may not say is `unknown`.

    A failure in a batch of several is looked for one by one, so that it costs one case its verdict and not all.
    Only a wrong command line (UsageError) and a stop (Stopped) end the run.
    """
    try:
        findings = judge.judge(cases)
        if len(findings) != len(cases):
            raise ToolrollError(f"{len(findings)} findings for {len(cases)} cases")
    except (UsageError, Stopped):
        raise
    except Exception as error:  # fail closed: no error may become a verdict
        if len(cases) > 1:
            return [ask(judge, [case])[0] for case in cases]
        why = str(error) if isinstance(error, ToolrollError) else f"{type(error).__name__}: {error}"
        findings = [Finding("unknown", f"the judge failed: {why}", lasting=False) for _ in cases]
    return [_possible(finding, case) for finding, case in zip(findings, cases, strict=True)]


def _possible(finding: Finding, case: Case) -> Finding:
    """`finding`, or unknown if a step of this kind cannot have that verdict."""
    if finding.verdict in ("ok", case.role, "unknown"):
        return finding
    return Finding("unknown", f"{finding.verdict!r} is no verdict for this kind of step", finding.raw, lasting=False)


def text_key(role: str, conclusion: str, other: str) -> str:
    """What identifies the texts of a verdict: 32 hex digits over role, conclusion and what it is held against.

    >>> text_key("over", "Paris", "Rome") == text_key("over", "Paris", "Rome") != text_key("under", "Paris", "Rome")
    True
    """
    digest = blake2b(digest_size=16)
    for part in (role, conclusion, other):
        data = part.encode("utf-8", "replace")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
