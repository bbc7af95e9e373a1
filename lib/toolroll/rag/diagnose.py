"""What is wrong with a HiPRAG response: every fault, named and placed, and the steps that can be read all the same.

The format is that of arXiv:2510.07794, section 3.1. Only a response that is not well formed comes here from
`toolroll.rag.parse`.
"""

from toolroll.rag.dialects import Reader, Tag, last_answer

__all__ = ["PROBLEMS", "StepReader"]

#: Every problem code, and what it says.
PROBLEMS: dict[str, str] = {
    "no_think": "no <think>",
    "multi_think": "a second <think>; steps are read from the last one that has any",
    "think_unclosed": "the thinking never ends",
    "text_before_think": "text before the thinking",
    "text_after_answer": "text after the answer",
    "no_step": "thinking without a single <step>",
    "step_unclosed": "a <step> that does not end inside its thinking; it is not among the steps",
    "stray_text": "text where only white space may stand",
    "unknown_tag": "a tag outside the vocabulary where only white space may stand",
    "stray_tag": "a tag of the vocabulary where it may not stand",
    "missing_reasoning": "a step without reasoning",
    "missing_conclusion": "a step without a conclusion",
    "tag_unclosed": "a part of a step that does not end",
    "duplicate_tag": "a part of a step that comes twice",
    "wrong_order": "a part of a step that comes too late",
    "nested_step": "a step inside a step",
    "empty_query": "a search for nothing",
    "empty_context": "a search that shows nothing",
    "search_without_context": "a search without its passages",
    "context_without_search": "passages without a search",
    "no_answer": "no answer",
    "answer_unclosed": "an answer that does not end",
    "multi_answer": "more than one answer",
    "empty_answer": "an answer of white space",
    "answer_in_think": "an answer inside the thinking",
    "truncated": "the response was cut off by a token limit",
}

_RANK = {"reasoning": 0, "search": 1, "context": 2, "conclusion": 3}
_MISPLACED = {"step": "nested_step", "think": "multi_think"}


class StepReader(Reader):
    """Walks a HiPRAG response tag by tag, notes every fault and goes on behind it.

    Where it had a choice it does as the released code does: the last `<think>` counts, a step ends at the first
    `</step>`, a part of a step at its first closer.
    """

    def read(self) -> None:
        """Fill `steps` and `problems`."""
        self._answers = 0
        at, index = self._open()
        if index or any(tag.name == "step" or (tag.name == "think" and tag.closing) for tag in self.tags):
            at, index = self._block(at, index)
        else:
            self.fault("no_step", 0, 0)
        self._tail(at, index)
        self.finish()

    def answer(self) -> str | None:
        """The last answer of the response."""
        return last_answer(self.text)

    def _open(self) -> tuple[int, int]:
        """Choose the `<think>` that counts: the last with a step behind it, so not one quoted in an answer."""
        thinks = [k for k, tag in enumerate(self.tags) if tag.name == "think" and not tag.closing]
        if not thinks:
            self.fault("no_think", 0, 0)
            return 0, 0
        steps = [k for k, tag in enumerate(self.tags) if tag.name == "step" and not tag.closing]
        first = self.tags[thinks[0]]
        chosen = max((k for k in thinks if steps and k < steps[-1]), default=thinks[-1])
        self.gap(0, first.start, "text_before_think")
        if chosen != thinks[0]:
            self.fault("multi_think", first.start, self.tags[chosen].start)
        return self.tags[chosen].end, chosen + 1

    def _block(self, at: int, index: int) -> tuple[int, int]:
        """Read steps until the thinking ends; give the place and tag to go on from."""
        begin, has_step, closed = at, False, False
        while index < len(self.tags) and not closed:
            tag = self.tags[index]
            ends = index if _is(tag, "think", closing=True) else self.following("think", closing=True, after=index)
            if _is(tag, "answer") and ends is None:
                break
            self.gap(at, tag.start)
            at, closed = tag.end, ends == index
            if _is(tag, "step"):
                has_step = True
                at, index = self._step(index, ends)
            elif _is(tag, "answer"):
                at, index = self._early_answer(index)
            else:
                if not closed:
                    self.fault(_MISPLACED["think"] if _is(tag, "think") else "stray_tag", tag.start, tag.end)
                index += 1
        if not closed:
            end = self.tags[index].start if index < len(self.tags) else len(self.text)
            self.gap(at, end)
            at = end
            if begin:
                self.fault("think_unclosed", end, end)
        if not has_step:
            self.fault("no_step", begin, at)
        return at, index

    def _early_answer(self, index: int) -> tuple[int, int]:
        """Pass over an answer inside the thinking, unless a step or the end of the thinking lies within it."""
        tag = self.tags[index]
        close = self.following("answer", closing=True, after=index)
        step = self.following("step", closing=False, after=index)
        ends = self.following("think", closing=True, after=index)
        if close is None or any(other is not None and other < close for other in (step, ends)):
            close = index
        self._answers += 1
        self.fault("answer_in_think", tag.start, self.tags[close].end)
        return self.tags[close].end, close + 1

    def _step(self, index: int, ends: int | None) -> tuple[int, int]:
        """Read the step opened at `index`; `ends` is the `</think>` behind it, if there is one."""
        opener = self.tags[index]
        close = self.following("step", closing=True, after=index)
        if close is not None and (ends is None or close < ends):
            end = self.tags[close].end
            found = self._parts(index + 1, close)
            self._lacks(found, opener.start, end)
            kind = "search" if any(_is(tag, "search") for tag in self.tags[index:close]) else "nonsearch"
            texts = {name: self.text[slice(*span)].strip() for name, span in found.items()}
            self.steps.append(
                {
                    "i": len(self.steps),
                    "kind": kind,
                    "reasoning": texts.get("reasoning", ""),
                    "query": texts.get("search"),
                    "context": texts.get("context") if kind == "search" else None,
                    "conclusion": texts.get("conclusion", ""),
                    "span": [opener.start, end],
                    "problems": [],
                }
            )
            return end, close + 1
        self.fault("step_unclosed", opener.start, opener.end)
        if ends is None:
            answer = self.following("answer", closing=False, after=index)
            ends = len(self.tags) if answer is None else answer
        self._parts(index + 1, ends)
        return (self.tags[ends].start if ends < len(self.tags) else len(self.text)), ends

    def _parts(self, index: int, stop: int) -> dict[str, tuple[int, int]]:
        """Text spans, by name, of the parts of a step in tags `index` to `stop`."""
        found: dict[str, tuple[int, int]] = {}
        at = self.tags[index - 1].end
        while index < stop:
            tag = self.tags[index]
            self.gap(at, tag.start)
            if tag.closing or tag.name not in _RANK:
                self.fault(_misplaced(tag), tag.start, tag.end)
                at, index = tag.end, index + 1
            else:
                at, index = self._part(index, stop, found)
        self.gap(at, self.tags[stop].start if stop < len(self.tags) else len(self.text))
        return found

    def _part(self, index: int, stop: int, found: dict[str, tuple[int, int]]) -> tuple[int, int]:
        tag = self.tags[index]
        close = self.following(tag.name, closing=True, after=index)
        if close is None or close >= stop:
            self.fault("tag_unclosed", tag.start, tag.end)
            end = at = self.tags[index + 1].start if index + 1 < len(self.tags) else len(self.text)
            onward = index + 1
        else:
            for inner in self.tags[index + 1 : close]:
                self.fault("duplicate_tag" if inner.name == tag.name else _misplaced(inner), inner.start, inner.end)
            end, at, onward = self.tags[close].start, self.tags[close].end, close + 1
        if tag.name in found:
            self.fault("duplicate_tag", tag.start, at)
        else:
            if any(_RANK[name] > _RANK[tag.name] for name in found):
                self.fault("wrong_order", tag.start, at)
            found[tag.name] = (tag.end, end)
        return at, onward

    def _lacks(self, found: dict[str, tuple[int, int]], start: int, end: int) -> None:
        """Note the parts a closed step does not have, or has empty."""
        for name in ("reasoning", "conclusion"):
            if name not in found:
                self.fault(f"missing_{name}", start, end)
        if ("search" in found) != ("context" in found):
            self.fault("search_without_context" if "search" in found else "context_without_search", start, end)
        for name, code in (("search", "empty_query"), ("context", "empty_context")):
            if name in found and not self.text[slice(*found[name])].strip():
                self.fault(code, *found[name])

    def _tail(self, at: int, index: int) -> None:
        """Read what follows the thinking: one answer, and nothing else."""
        while index < len(self.tags):
            tag = self.tags[index]
            self._beyond(at, tag.start)
            at, index = tag.end, index + 1
            if _is(tag, "answer"):
                at, index = self._answer(index - 1)
            else:
                self.fault("multi_think" if _is(tag, "think") else "stray_tag", tag.start, tag.end)
        self._beyond(at, len(self.text))
        if not self._answers:
            self.fault("no_answer", len(self.text), len(self.text))

    def _beyond(self, start: int, end: int) -> None:
        self.gap(start, end, "text_after_answer" if self._answers else "stray_text")

    def _answer(self, index: int) -> tuple[int, int]:
        tag = self.tags[index]
        close = self.following("answer", closing=True, after=index)
        last = len(self.tags) if close is None else close
        start, end = (len(self.text),) * 2 if close is None else self.tags[close][2:]
        if self._answers:
            self.fault("multi_answer", tag.start, end)
        if close is None:
            self.fault("answer_unclosed", tag.start, tag.end)
        elif not self.text[tag.end : start].strip():
            self.fault("empty_answer", tag.end, start)
        for inner in self.tags[index + 1 : last]:
            # An answer may quote any other tag.
            if not inner.closing and inner.name in ("answer", "think"):
                self.fault(f"multi_{inner.name}", inner.start, inner.end)
        self._answers += 1
        return end, last + 1


def _is(tag: Tag, name: str, *, closing: bool = False) -> bool:
    return tag.name == name and tag.closing == closing


def _misplaced(tag: Tag) -> str:
    return "stray_tag" if tag.closing else _MISPLACED.get(tag.name, "stray_tag")
