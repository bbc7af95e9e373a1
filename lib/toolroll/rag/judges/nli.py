"""A judge that asks a cross-encoder for natural language inference: does one text entail or contradict another?

Over-search: conclusion and closed-book answer that entail each other say the same; a contradiction either way says
they differ; anything else is unknown. Under-search: a conclusion that the reasoning or a passage found for it
contradicts does not hold; one that the reasoning or a passage entails does; anything else is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolroll.errors import ToolrollError, UsageError
from toolroll.rag.judges.base import ROLES, Case, Finding, Role
from toolroll.rag.judges.evidence import TOPK, claims, find_passages
from toolroll.rag.judges.words import abstains

if TYPE_CHECKING:
    from toolroll.rag.retrieve import Retriever

__all__ = ["NliJudge"]

Relation = Literal["entailment", "contradiction", "neutral"]
_BATCH = 16


class NliJudge:
    """A `transformers` sequence classifier in folder `path` that has labels for entailment and contradiction.

    Which label is which comes from the model's own `id2label`. device: torch's name. retriever: where passages for
    the under-search test come from; None leaves it to the step's reasoning alone.
    """

    name = "nli"
    roles: frozenset[Role] = frozenset(ROLES)
    recorded = False

    def __init__(
        self, path: Path, *, device: str = "cpu", retriever: Retriever | None = None, topk: int = TOPK
    ) -> None:
        from toolroll.models.load import fingerprint

        self._tokenizer, self._model = _load(path, device)
        self._labels = _relations(self._model.config.id2label, str(path))
        self._device = device
        self._retriever = retriever
        self._topk = topk
        weights = ",".join(
            fingerprint(file) for file in sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
        )
        passages = retriever.identity if retriever is not None else "none"
        self.identity = f"nli/1 {path.resolve().name}@{weights} {passages} topk={topk}"

    def judge(self, cases: Sequence[Case]) -> list[Finding]:
        """A finding for each case."""
        premises = self._premises(cases)
        pairs: list[tuple[str, str]] = []
        for case, texts in zip(cases, premises, strict=True):
            pairs += [(text, case.conclusion) for text in texts]
            if case.role == "over" and texts:
                pairs.append((case.conclusion, texts[0]))
        told = iter(self._relate(pairs))
        return [
            self._judge(case, texts, [next(told) for _ in range(_count(case, texts))])
            for case, texts in zip(cases, premises, strict=True)
        ]

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def _premises(self, cases: Sequence[Case]) -> list[list[str]]:
        """What each conclusion is held against; nothing for a step that claims nothing."""
        looked_up = [case for case in cases if case.role == "under" and claims(case) is None]
        hits = (
            [[] for _ in looked_up]
            if self._retriever is None
            else find_passages(self._retriever, looked_up, self._topk)
        )
        passages = {id(case): [hit["text"] for hit in found] for case, found in zip(looked_up, hits, strict=True)}
        premises = []
        for case in cases:
            if case.role == "over":
                silent = abstains(case.closed_book or "") or abstains(case.conclusion)
                premises.append([] if silent else [case.closed_book or ""])
            elif id(case) in passages:
                premises.append([text for text in (case.reasoning, *passages[id(case)]) if text.strip()])
            else:
                premises.append([])
        return premises

    def _judge(self, case: Case, premises: list[str], relations: list[Relation]) -> Finding:
        if case.role == "over":
            if not premises:
                return Finding("ok", "the closed-book answer or the conclusion abstains")
            told = f"closed-book answer to conclusion {relations[0]}, back {relations[1]}"
            if "contradiction" in relations:
                return Finding("ok", told)
            return Finding("over" if set(relations) == {"entailment"} else "unknown", told)
        if not premises:
            return Finding("unknown", claims(case) or "no reasoning and no passages to hold the conclusion against")
        if "contradiction" in relations:
            return Finding("under", f"contradicted by {_source(case, premises[relations.index('contradiction')])}")
        if "entailment" in relations:
            return Finding("ok", f"entailed by {_source(case, premises[relations.index('entailment')])}")
        return Finding("unknown", "neither entailed nor contradicted")

    def _relate(self, pairs: Sequence[tuple[str, str]]) -> list[Relation]:
        """How each (premise, hypothesis) relates; pairs of like length are read together.

        A long premise is cut at its end, a hypothesis never: half of one is another claim. The tokenizer raises.
        """
        import torch

        relations: list[Relation] = ["neutral"] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        longest = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 512))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            inputs = self._tokenizer(
                [pairs[i][0] for i in chosen],
                [pairs[i][1] for i in chosen],
                truncation="only_first",
                max_length=longest,
                padding=True,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                logits = self._model(**inputs).logits.float()
            if not bool(torch.isfinite(logits).all()):
                raise ToolrollError("the model's output is not a number", place=self.name)
            for i, label in zip(chosen, logits.argmax(-1).tolist(), strict=True):
                relations[i] = self._labels[label]
        return relations


def _count(case: Case, premises: list[str]) -> int:
    return 2 * len(premises) if case.role == "over" else len(premises)


def _source(case: Case, premise: str) -> str:
    return "the reasoning" if premise == case.reasoning else "a passage"


def _load(path: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from toolroll.models.load import loading, quiet

    if not (path / "config.json").is_file():
        raise ToolrollError("no model folder (no config.json in it)", place=str(path))
    with loading("a sequence classifier", str(path)), quiet():
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(path, trust_remote_code=False)
    return tokenizer, model.to(device).eval()


def _relations(id2label: dict[int, str], place: str) -> dict[int, Relation]:
    """What each label of a model means; UsageError unless one is entailment and one contradiction."""
    meaning: dict[int, Relation] = {}
    for number, label in id2label.items():
        plain = label.lower()
        negated = plain.startswith(("not", "non"))
        if "contradict" in plain and not negated:
            meaning[int(number)] = "contradiction"
        else:
            meaning[int(number)] = "entailment" if "entail" in plain and not negated else "neutral"
    if sorted(meaning.values()).count("entailment") != 1 or sorted(meaning.values()).count("contradiction") != 1:
        labels = ", ".join(map(str, id2label.values()))
        raise UsageError(f"needs one label for entailment and one for contradiction; it has {labels}", place=place)
    return meaning
