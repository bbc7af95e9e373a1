"""The judges of a run, one a role, and what they share: re-answers, the cache, the record of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from toolroll.io.cache import Cache, cache_key
from toolroll.rag.judges.base import Case, Finding, Judge, Role, ask
from toolroll.rag.judges.reanswer import Reanswerer
from toolroll.rag.judges.replay import VerdictFile

__all__ = ["Panel"]


class Panel:
    """Judges cases of both roles; a role without a judge is unknown.

    cache: where verdicts are kept that will not change; unknown ones are asked for again, and a judge without a model
    is quicker than the cache. record: gets every verdict. reanswerer: gives the closed-book answers, in place of the
    row's. A finding's `why` begins with the name of its judge.
    """

    def __init__(
        self,
        judges: Mapping[Role, Judge],
        *,
        cache: Cache | None = None,
        record: VerdictFile | None = None,
        reanswerer: Reanswerer | None = None,
        owned: ExitStack | None = None,
    ) -> None:
        self._judges = dict(judges)
        self._cache = cache
        self._record = record
        self._reanswerer = reanswerer
        self._owned = owned or ExitStack()
        self.name = ",".join(dict.fromkeys(judge.name for judge in self._judges.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the judges, their models and files."""
        self._owned.close()

    @property
    def roles(self) -> frozenset[Role]:
        """The roles there is a judge for."""
        return frozenset(self._judges)

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case, in order."""
        if self._reanswerer is not None:
            cases = _reanswered(cases, self._reanswerer)
        findings: dict[int, Finding] = {}
        for role, judge in self._judges.items():
            mine = [i for i, case in enumerate(cases) if case.role == role]
            found = self._of_one(judge, [cases[i] for i in mine])
            findings.update(zip(mine, found, strict=True))
            if self._record is not None:
                self._record.write((cases[i], findings[i], judge.name) for i in mine)
        nobody = Finding("unknown", "no judge was asked")
        return [self._signed(case, findings.get(i, nobody)) for i, case in enumerate(cases)]

    def _of_one(self, judge: Judge, cases: list[Case]) -> list[Finding]:
        """One judge's findings: what lacks material is unknown, what is in the cache is not asked."""
        if judge.recorded:
            return ask(judge, cases)
        found = [None if (why := case.lacks) is None else Finding("unknown", why) for case in cases]
        keys = {i: _key(judge, case) for i, case in enumerate(cases) if found[i] is None}
        cache = self._cache if judge.name != "lexical" else None
        stored = cache.get_many(keys.values()) if cache is not None else {}
        asked: dict[bytes, int] = {}
        for i, key in keys.items():
            if key in stored:
                found[i] = Finding(*stored[key])
            else:
                asked.setdefault(key, i)
        fresh = dict(zip(asked, ask(judge, [cases[i] for i in asked.values()]) if asked else [], strict=True))
        if cache is not None:
            cache.put_many(
                {
                    key: [finding.verdict, finding.why, finding.raw]
                    for key, finding in fresh.items()
                    if finding.lasting and finding.verdict != "unknown"
                }
            )
        return [finding if finding is not None else fresh[keys[i]] for i, finding in enumerate(found)]

    def _signed(self, case: Case, finding: Finding) -> Finding:
        judge = self._judges.get(case.role)
        return replace(finding, why=f"{judge.name}: {finding.why}") if judge is not None else finding


def _key(judge: Judge, case: Case) -> bytes:
    texts = [case.role, case.query, case.reasoning, case.conclusion, case.other]
    return cache_key("verdict", judge.identity, {}, [text.encode(errors="replace").decode() for text in texts])


def _reanswered(cases: Sequence[Case], reanswerer: Reanswerer) -> list[Case]:
    """The cases with the closed-book answers the policy gives now."""
    queries = [case.query.strip() for case in cases if case.role == "over" and case.query.strip()]
    said = _asked(reanswerer.answers, queries) if queries else {}
    judged = []
    for case in cases:
        answer = said.get(case.query.strip())
        if case.role != "over" or not case.query.strip():
            judged.append(case)
        elif isinstance(answer, str):
            judged.append(replace(case, closed_book=answer))
        else:
            judged.append(replace(case, closed_book=None, missing=f"the re-answer failed: {answer}"))
    return judged


def _asked(
    answers: Callable[[Iterable[str]], dict[str, str | Exception]], queries: Sequence[str]
) -> dict[str, str | Exception]:
    """The answers to `queries`; a failure of all of them is looked for one by one."""
    from toolroll.errors import Stopped, UsageError

    try:
        return answers(queries)
    except (UsageError, Stopped):
        raise
    except Exception as error:  # fail closed: what cannot be asked has no answer
        if len(queries) == 1:
            return {queries[0]: error}
        return {query: answer for query in queries for answer in _asked(answers, [query]).values()}
