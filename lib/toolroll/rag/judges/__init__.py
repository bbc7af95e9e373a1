"""Judges of single steps: which there are, and how a run's panel of them is opened.

    lexical    over          words of conclusion and closed-book answer; no model
    evidence   under         words of the conclusion in passages of a corpus; needs a retriever
    lm         over, under   log-probabilities of True and False of a local language model
    openai     over, under   a reply of a language model behind an OpenAI-compatible server
    nli        over, under   entailment and contradiction by a cross-encoder
    replay     over, under   verdicts recorded in a file
    given      over, under   the verdicts the rows have already

`over`: was a search needed? `under`: does a step without a search hold? The judges without a model are proxies for
the language models of the paper (arXiv:2510.07794, section 3.2), and every verdict says who gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from toolroll.errors import UsageError
from toolroll.io.cache import Cache
from toolroll.models.base import Sampling
from toolroll.models.options import ModelOptions
from toolroll.rag.judges.base import ROLES, Case, Finding, Judge, Role
from toolroll.rag.judges.panel import Panel

if TYPE_CHECKING:
    from toolroll.models.base import TextEngine
    from toolroll.rag.judges.reanswer import Reanswerer
    from toolroll.rag.judges.replay import VerdictFile
    from toolroll.rag.retrieve import Retriever

__all__ = ["JUDGES", "Case", "Finding", "Judge", "JudgeSettings", "Panel", "choose_judges", "open_judges"]

#: The roles each judge can have.
JUDGES: dict[str, frozenset[Role]] = {
    "lexical": frozenset(["over"]),
    "evidence": frozenset(["under"]),
    **dict.fromkeys(("lm", "openai", "nli", "replay", "given"), frozenset(ROLES)),
}


@dataclass(frozen=True)
class JudgeSettings:
    """What the judges of a run may need; each looks at its own part.

    `notify` hears of models that are loaded, `warn` of verdicts that cannot be had.
    """

    model: ModelOptions
    notify: Callable[[str], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None
    retriever: str | None = None
    tau: float = 0.6
    topk: int = 5
    min_mass: float = 0.05
    judge_tokens: int = 512
    nli_model: Path | None = None
    replay: Path | None = None
    judge_cache: Path | None = None
    save_verdicts: Path | None = None
    reanswer: bool = False
    policy: str | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=128))


def choose_judges(spec: str, roles: Collection[Role]) -> dict[Role, str]:
    """The judge's name for each of `roles`, from `NAME` or `OVER,UNDER`. UsageError for a judge that has no such role.

    >>> choose_judges("lexical,evidence", ("over", "under"))
    {'over': 'lexical', 'under': 'evidence'}
    """
    names = [name.strip() for name in spec.split(",")]
    if len(names) > len(ROLES):
        raise UsageError("takes one name, or two: OVER,UNDER", place="--judge")
    for name in names:
        if name not in JUDGES:
            raise UsageError(f"{name!r} is not one of {', '.join(JUDGES)}", place="--judge")
    of_role = dict(zip(ROLES, names if len(names) > 1 else names * 2, strict=True))
    for role in ROLES:
        if role in roles and role not in JUDGES[of_role[role]]:
            able = ", ".join(name for name, can in JUDGES.items() if role in can)
            raise UsageError(f"{of_role[role]} cannot judge {role}-search; {able} can", place="--judge")
    return {role: name for role, name in of_role.items() if role in roles}


def open_judges(spec: str, roles: Collection[Role], settings: JudgeSettings) -> Panel | None:
    """The panel that `spec` names for `roles`; None when nothing but the verdicts in the rows is asked for.

    Raises UsageError for a judge that cannot do what it is asked or lacks what it needs.
    """
    chosen = choose_judges(spec, roles)
    if set(chosen.values()) <= {"given"} and settings.save_verdicts is None:
        return None
    owned = ExitStack()
    try:
        opener = _Opener(settings, owned)
        judges = {name: opener.open(name) for name in dict.fromkeys(chosen.values())}
        return Panel(
            {role: judges[name] for role, name in chosen.items()},
            cache=opener.cache,
            record=opener.record(),
            reanswerer=opener.reanswerer() if "over" in chosen else None,
            owned=owned,
        )
    except BaseException:
        owned.close()
        raise


class _Opener:
    """Opens judges, and what several of them share once only."""

    def __init__(self, settings: JudgeSettings, owned: ExitStack) -> None:
        self._settings = settings
        self._owned = owned
        self._engines: dict[str, TextEngine] = {}

    def open(self, name: str) -> Judge:
        judge: Judge = getattr(self, f"_{name}")()
        self._owned.callback(judge.close)
        return judge

    def record(self) -> VerdictFile | None:
        from toolroll.rag.judges.replay import VerdictFile

        path = self._settings.save_verdicts
        return None if path is None else self._owned.enter_context(VerdictFile(path))

    def reanswerer(self) -> Reanswerer | None:
        from toolroll.rag.judges.reanswer import Reanswerer

        settings = self._settings
        if not settings.reanswer:
            return None
        if settings.policy is None:
            raise UsageError("needs the model that wrote the rollouts (--policy)", place="--reanswer")
        return Reanswerer(self._engine(_policy_model(settings.policy)), settings.sampling, self.cache)

    @cached_property
    def cache(self) -> Cache | None:
        path = self._settings.judge_cache
        return None if path is None else self._owned.enter_context(Cache(path))

    @cached_property
    def retriever(self) -> Retriever | None:
        from toolroll.rag.retrieve import CachedRetriever, open_retriever

        if self._settings.retriever is None:
            return None
        retriever = open_retriever(self._settings.retriever)
        self._owned.callback(retriever.close)
        return retriever if self.cache is None else CachedRetriever(retriever, self.cache)

    def _engine(self, model: str) -> TextEngine:
        if model not in self._engines:
            engine = self._settings.model.open(self._settings.notify, model=model)
            self._owned.callback(engine.close)
            self._engines[model] = engine
        return self._engines[model]

    def _lexical(self) -> Judge:
        from toolroll.rag.judges.lexical import LexicalJudge

        return LexicalJudge()

    def _evidence(self) -> Judge:
        from toolroll.rag.judges.evidence import EvidenceJudge
        from toolroll.rag.retrieve import NoRetriever

        if self.retriever is None:
            self._settings.warn("evidence has no --retriever: steps without a search get no verdict")
        return EvidenceJudge(self.retriever or NoRetriever(), tau=self._settings.tau, topk=self._settings.topk)

    def _lm(self) -> Judge:
        from toolroll.rag.judges.model import ChoiceJudge

        if self._settings.model.base_url is not None:
            raise UsageError("lm runs a model in this process; with --base-url use openai", place="--judge")
        return ChoiceJudge(self._engine(self._settings.model.model), min_mass=self._settings.min_mass)

    def _openai(self) -> Judge:
        from toolroll.rag.judges.model import ChatJudge

        model = self._settings.model
        if model.base_url is None and model.backend in ("auto", "openai"):
            raise UsageError("openai needs a server (--base-url), or an explicit --backend", place="--judge")
        return ChatJudge(self._engine(model.model), max_tokens=self._settings.judge_tokens)

    def _nli(self) -> Judge:
        from toolroll.models.device import choose_device
        from toolroll.rag.judges.nli import NliJudge

        settings = self._settings
        if settings.nli_model is None:
            raise UsageError("nli needs --nli-model", place="--judge")
        device = choose_device(settings.model.device)
        settings.notify(f"nli model {settings.nli_model} on {device.text}")
        return NliJudge(settings.nli_model, device=device.name, retriever=self.retriever, topk=settings.topk)

    def _replay(self) -> Judge:
        from toolroll.rag.judges.replay import ReplayJudge

        if self._settings.replay is None:
            raise UsageError("replay needs --replay FILE", place="--judge")
        return ReplayJudge(self._settings.replay)

    def _given(self) -> Judge:
        from toolroll.rag.judges.replay import GivenJudge

        return GivenJudge()


def _policy_model(policy: str) -> str:
    """The model in `policy`: a policy directory's current version, else what any model is named by."""
    from toolroll.models.policy import current_policy

    folder = Path(policy)
    return str(current_policy(folder).path) if (folder / "current").is_symlink() else policy
