"""The three format checkers HiPRAG's released code has, each with its own idea of a valid response.

    release   the one that pays the training reward (`verl/utils/reward_score/qa_em_format.py`)
    eval      the same, blind to what follows the answer (`reward.py`)
    regex     the one that decides which trajectories count in OSR and USR (both files)

All three look only at the text from the last `<think>` on. They give upstream's verdicts, in linear time: upstream's
pattern tries every way to split n steps into groups, 2^n of them, when the end of the response is missing.
"""

import re
from collections.abc import Callable, Sequence

__all__ = ["CHECKERS", "check_eval", "check_regex", "check_release"]

_SEARCH_FIELDS = ("reasoning", "search", "context", "conclusion")
_PLAIN_FIELDS = ("reasoning", "conclusion")

_PAIR = {name: re.compile(f"<{name}>.*?</{name}>", re.DOTALL) for name in _SEARCH_FIELDS}
_FIELD_OPENER = re.compile("<(" + "|".join(_SEARCH_FIELDS) + ")>")
_STEP = re.compile("<step>(.*?)</step>", re.DOTALL)
_FIRST_STEP = re.compile(r"<think>\s*+<step>")
_LAST_STEP = re.compile(r"</step>\s*+</think>\s*+<answer>")
_BRACKET = re.compile(r"<[^>]")


def _last_block(response: str) -> str:
    """The response from its last `<think>` on, stripped; empty without one."""
    opened = response.rfind("<think>")
    return response[opened:].strip() if opened >= 0 else ""


def _without_pairs(step: str, names: Sequence[str]) -> str:
    for name in names:
        step = _PAIR[name].sub("", step)
    return step


def _after(text: str, mark: str) -> str | None:
    _, found, rest = text.partition(mark)
    return rest if found else None


def _has_text(step: str, name: str) -> bool:
    inner, closed, _ = (_after(step, f"<{name}>") or "").partition(f"</{name}>")
    return bool(closed and inner.strip())


def _fields_in_order(step: str, names: Sequence[str]) -> bool:
    """Whether each pair of `names` is found in turn, each behind the one before."""
    rest: str | None = step
    for name in names:
        for mark in (f"<{name}>", f"</{name}>"):
            rest = _after(rest, mark) if rest is not None else None
    return rest is not None


def _step_passes_release(step: str) -> bool:
    beyond_reasoning = _after(_after(step, "<reasoning>") or "", "</reasoning>")
    if beyond_reasoning is None:
        return False
    searches = "<search>" in beyond_reasoning
    names = _SEARCH_FIELDS if searches else _PLAIN_FIELDS
    # Only openers are counted, and in a step without a search only those of its own two fields.
    if not _fields_in_order(step, names) or any(step.count(f"<{name}>") != 1 for name in names):
        return False
    if searches and not (_has_text(step, "search") and _has_text(step, "context")):
        return False
    left = _without_pairs(step, names)
    return not ("<" in left and ">" in left)


def _check_walk(response: str, *, end_matters: bool) -> bool:
    thought, closed, tail = _last_block(response).partition("</think>")
    answer, answer_closed, beyond = tail.lstrip().partition("</answer>")
    if not (closed and answer_closed and answer.startswith("<answer>")) or (end_matters and beyond.strip()):
        return False
    start = thought.find("<step>")
    if start < 0:
        return False
    while start >= 0:
        end = thought.find("</step>", start)
        if end < 0 or not _step_passes_release(thought[start + 6 : end]):
            return False
        start = thought.find("<step>", end)
    return True


def check_release(response: str) -> bool:
    """Validity F as the released training reward computes it.

    >>> check_release("<think><step><reasoning>r</reasoning><conclusion>o</conclusion></step></think><answer></answer>")
    True
    """
    return _check_walk(response, end_matters=True)


def check_eval(response: str) -> bool:
    """Validity as the released evaluation computes it: what follows the answer does not matter.

    >>> step = "<step><reasoning>r</reasoning><conclusion>o</conclusion></step>"
    >>> check_eval(f"<think>{step}</think><answer>Paris</answer><|im_end|>")
    True
    """
    return _check_walk(response, end_matters=False)


def check_regex(response: str) -> bool:
    """Validity by the released pattern, which chooses the trajectories behind the published OSR and USR.

    >>> step = "<step><reasoning>r</reasoning><conclusion>o</conclusion></step>"
    >>> check_regex(f"<think>{step}</think><answer>Paris</answer><|im_end|>")
    False
    """
    block = _last_block(response)
    first = _FIRST_STEP.match(block)
    last = _LAST_STEP.search(block, first.end()) if first else None
    if first is None or last is None or not block.endswith("</answer>") or last.end() > len(block) - 9:
        return False
    steps = block[first.end() - 6 : last.start() + 7]
    return all(_step_passes_regex(step) for step in _STEP.findall(steps))


def _step_passes_regex(step: str) -> bool:
    names = tuple(_FIELD_OPENER.findall(step))
    if names not in (_SEARCH_FIELDS, _PLAIN_FIELDS) or any(step.count(f"</{name}>") != 1 for name in names):
        return False
    if len(names) == 4 and not (_has_text(step, "search") and _has_text(step, "context")):
        return False
    left = _without_pairs(step, names)
    # A foreign tag is a `<`, anything but `>`, then somewhere a `>`.
    bracket = _BRACKET.search(left)
    return bracket is None or left.find(">", bracket.end()) < 0


CHECKERS: dict[str, Callable[[str], bool]] = {"release": check_release, "eval": check_eval, "regex": check_regex}
