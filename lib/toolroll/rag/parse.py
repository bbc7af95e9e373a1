"""A search-using model's response: cut into steps, judged for format, every fault named.

Only the response is ever parsed. The released code reads prompt and response together, and its prompt
mentions the tags, so that a run without an answer is scored on the prompt's words.

A well-formed HiPRAG response (arXiv:2510.07794, section 3.1) is one `<think>` of steps, then one `<answer>`:

    <step> <reasoning>r</reasoning> <search>q</search> <context>c</context> <conclusion>o</conclusion> </step>
    <step> <reasoning>r</reasoning> <conclusion>o</conclusion> </step>

White space between tags is free. Nearly all responses of a trained model are well formed, and a few pattern
matches read them; only the others are walked tag by tag to say what is wrong with them.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from toolroll.errors import UsageError
from toolroll.rag.checkers import CHECKERS
from toolroll.rag.diagnose import StepReader
from toolroll.rag.dialects import DIALECTS, TurnReader

__all__ = ["STRICTNESS", "Parse", "Strictness", "parse"]

Strictness = Literal["paper", "paper-literal", "release", "eval", "regex"]
STRICTNESS: tuple[Strictness, ...] = ("paper", "paper-literal", "release", "eval", "regex")

# The paper's Algorithms 2 and 3 do not look into the query and the passages, nor at how generation ended.
_FORGIVEN_BY_PAPER = {"empty_query", "empty_context", "truncated"}

# Text without a tag of the vocabulary. Possessive, so that no input makes the engine go back.
_TEXT = r"[^<]*+(?:<(?!/?(?:think|step|reasoning|search|context|conclusion|answer)>)[^<]*+)*+"
_HEAD = re.compile(r"\s*+<think>\s*+")
_STEP = re.compile(
    rf"<step>\s*+<reasoning>({_TEXT})</reasoning>\s*+"
    rf"(?:<search>({_TEXT})</search>\s*+<context>({_TEXT})</context>\s*+)?+"
    rf"<conclusion>({_TEXT})</conclusion>\s*+</step>()\s*+"
)
# An answer may quote any tag but those that would start another answer or another think.
_TAIL = re.compile(r"</think>\s*+<answer>([^<]*+(?:<(?!/?answer>|think>)[^<]*+)*+)</answer>\s*+\Z")

_match_step = _STEP.match


@dataclass(slots=True)
class Parse:
    """What a response is made of.

    steps: dicts ready for JSON with, in this order, `i` (from 0), `kind` (search or nonsearch), `reasoning`,
        `query`, `context`, `conclusion`, `span` and `problems` (codes). Texts are stripped; an absent reasoning or
        conclusion is "", an absent query or context None, and both are None in a nonsearch step.
    valid: the format verdict F, under the strictness asked for.
    problems: dicts with `code` (a key of `toolroll.rag.diagnose.PROBLEMS`), `span` and `step` (the `i` of the
        step it begins in, or None), in order of position.
    answer: text of the last answer pair, stripped, wherever it stands; None without one.

    A span is `[start, end)` in characters (code points) of the response.
    """

    steps: list[dict[str, Any]]
    valid: bool
    problems: list[dict[str, Any]]
    answer: str | None


def parse(
    response: str, *, dialect: str = "hiprag", strictness: Strictness = "paper", truncated: bool = False
) -> Parse:
    """Cut a response into steps and judge its format (arXiv:2510.07794, section 3.1, Algorithms 2 and 3).

    response: what the model wrote, with the injected passages, without the prompt.
    dialect: `hiprag`, `search-r1` (also ZeroSearch and ReSearch) or `r1-searcher`.
    strictness: who decides `valid`; problems and steps are the same under all. `paper` wants no problem at all;
        `paper-literal` forgives an empty query or context and a cut that lost nothing; `release`, `eval` and
        `regex` are the released checkers (`toolroll.rag.checkers`), which exist for `hiprag` only.
    truncated: generation stopped at a token limit; adds the problem `truncated`.

    A step is kept if it is closed, however broken inside, and is a search step if it holds a `<search>` anywhere.
    The time taken is proportional to the length of the response, whatever it holds, but for a logarithm.

    Raises UsageError for an unknown dialect or strictness, or a checker the dialect does not have.

    >>> step = "<step><reasoning>r</reasoning><conclusion>o</conclusion></step>"
    >>> parsed = parse(f"<think>{step}</think> <answer> Paris </answer>")
    >>> parsed.valid, parsed.answer, parsed.steps[0]["kind"]
    (True, 'Paris', 'nonsearch')
    >>> [problem["code"] for problem in parse(f"<think>{step} so <answer>Paris").problems]
    ['stray_text', 'think_unclosed', 'answer_unclosed']
    """
    if dialect == "hiprag" and not truncated and strictness in STRICTNESS:
        parsed = _well_formed(response)
        if parsed is not None:
            return parsed
    return _diagnose(response, dialect, strictness, truncated=truncated)


def _well_formed(response: str) -> Parse | None:
    """The parse of a response without a fault, None if there is one.

    Every checker accepts what this accepts, so strictness does not matter here.
    """
    head = _HEAD.match(response)
    if head is None:
        return None
    steps: list[dict[str, Any]] = []
    at = head.end()
    while (match := _match_step(response, at)) is not None:
        reasoning, query, context, conclusion, _ = match.groups()
        kind = "nonsearch"
        if query is not None:
            kind = "search"
            query, context = query.strip(), context.strip()
            if not (query and context):
                return None
        steps.append(
            {
                "i": len(steps),
                "kind": kind,
                "reasoning": reasoning.strip(),
                "query": query,
                "context": context,
                "conclusion": conclusion.strip(),
                "span": [at, match.start(5)],
                "problems": [],
            }
        )
        at = match.end()
    tail = _TAIL.match(response, at)
    if tail is None or not steps:
        return None
    answer = tail[1].strip()
    return Parse(steps, True, [], answer) if answer else None


def _diagnose(response: str, dialect: str, strictness: str, *, truncated: bool) -> Parse:
    """The parse of any response, by walking its tags."""
    if dialect not in DIALECTS:
        raise UsageError(f"unknown dialect {dialect!r}; known: {', '.join(DIALECTS)}")
    if strictness not in STRICTNESS:
        raise UsageError(f"unknown strictness {strictness!r}; known: {', '.join(STRICTNESS)}")
    check = CHECKERS.get(strictness)
    if check is not None and dialect != "hiprag":
        raise UsageError(f"strictness {strictness!r} is HiPRAG's own; dialect {dialect!r} has paper and paper-literal")
    reader = StepReader(response, dialect) if dialect == "hiprag" else TurnReader(response, dialect)
    reader.read()
    problems = reader.problems
    if truncated:
        problems.append({"code": "truncated", "span": [len(response), len(response)], "step": None})
    if check is not None:
        valid = check(response)
    elif strictness == "paper":
        valid = not problems
    else:
        valid = all(problem["code"] in _FORGIVEN_BY_PAPER for problem in problems)
    return Parse(reader.steps, valid, problems, reader.answer())
