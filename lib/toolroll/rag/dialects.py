"""The tag vocabularies of agentic-RAG trajectories, and a reader of those written turn by turn.

HiPRAG nests steps in one `<think>` (read by `toolroll.rag.parse`). Its peers write a flat row of turns,
read here: a thought, a query, the passages found, the next thought, and so on to the answer.

    search-r1     `<think> <search> <information> <answer>`; also ZeroSearch, and ReSearch with `<result>`
    r1-searcher   prose, `<|begin_of_query|>..`, `<|begin_of_documents|>..`, `</think>`, `<answer>`

Sources: arXiv:2503.09516 (Search-R1), 2505.04588 (ZeroSearch), 2503.19470 (ReSearch), 2503.05592 (R1-Searcher).
"""

import re
from bisect import bisect_right
from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["DIALECTS", "Reader", "Tag", "TurnReader", "last_answer"]

_R1_NAMES = {"query": "search", "documents": "information"}
_ONE_NAME = {"result": "information"}

_VOCABULARY = {
    "hiprag": re.compile(r"<(/?)(think|step|reasoning|search|context|conclusion|answer)>"),
    "search-r1": re.compile(r"<(/?)(think|search|information|result|answer)>"),
    "r1-searcher": re.compile(r"<(/?)(think|answer)>|<\|(begin|end)_of_(query|documents)\|>"),
}
DIALECTS = tuple(_VOCABULARY)

_FOREIGN_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_BOXED = re.compile(r"\\boxed\{([^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+)\}")


class Tag(NamedTuple):
    """One tag of the vocabulary; `start` and `end` are character offsets in the response."""

    name: str
    closing: bool
    start: int
    end: int


def last_answer(text: str) -> str | None:
    """Text of the last `<answer>`..`</answer>` pair, stripped; None without a pair.

    Pairs are taken from the left, each opener with the first closer after it, as the released code does.

    >>> last_answer("<answer>Rome</answer> no, <answer> Paris </answer> <answer>")
    'Paris'
    """
    answer, at = None, 0
    while (opened := text.find("<answer>", at)) >= 0 and (closed := text.find("</answer>", opened + 8)) >= 0:
        answer = text[opened + 8 : closed]
        at = closed + 9
    return None if answer is None else answer.strip()


class Reader:
    """A response cut at its tags, and the faults found so far.

    `problems` holds `{"code", "span", "step"}`, `steps` what will be handed out, each with its `span`.
    Every look-ahead is a bisection, so n characters take at most n log n.
    """

    def __init__(self, text: str, dialect: str) -> None:
        self.text = text
        self.tags = [_tag(match) for match in _VOCABULARY[dialect].finditer(text)]
        self.problems: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self._where: dict[tuple[str, bool], list[int]] = {}
        for index, tag in enumerate(self.tags):
            self._where.setdefault((tag.name, tag.closing), []).append(index)

    def following(self, name: str, *, closing: bool, after: int) -> int | None:
        """Index in `tags` of the first such tag behind index `after`, or None."""
        where = self._where.get((name, closing), [])
        k = bisect_right(where, after)
        return where[k] if k < len(where) else None

    def fault(self, code: str, start: int, end: int) -> None:
        """Note a problem at characters `start` to `end`."""
        self.problems.append({"code": code, "span": [start, end], "step": None})

    def gap(self, start: int, end: int, code: str = "stray_text") -> None:
        """Note what stands where only white space may: one problem for the text, one for foreign tags."""
        text = self.text[start:end]
        if not text or text.isspace():
            return
        if code == "stray_text" and (tags := [match.span() for match in _FOREIGN_TAG.finditer(text)]):
            self.fault("unknown_tag", start + tags[0][0], start + tags[-1][1])
            if not _FOREIGN_TAG.sub("", text).strip():
                return
        self.fault(code, start + len(text) - len(text.lstrip()), start + len(text.rstrip()))

    def finish(self) -> None:
        """Order the problems by position; one that begins inside a step belongs to it."""
        self.problems.sort(key=lambda problem: problem["span"])
        steps = iter(self.steps)
        step = next(steps, None)
        for problem in self.problems:
            start, code = problem["span"][0], problem["code"]
            while step is not None and start >= step["span"][1]:
                step = next(steps, None)
            if step is not None and start >= step["span"][0]:
                problem["step"] = step["i"]
                if code not in step["problems"]:
                    step["problems"].append(code)


def _tag(match: re.Match[str]) -> Tag:
    groups = match.groups()
    if groups[1] is None:
        return Tag(_R1_NAMES[groups[3]], groups[2] == "end", match.start(), match.end())
    return Tag(_ONE_NAME.get(groups[1], groups[1]), groups[0] == "/", match.start(), match.end())


class _Piece(NamedTuple):
    """A paired tag or, in r1-searcher, a stretch of prose: outer span, then the span of its text."""

    name: str
    start: int
    end: int
    inner: tuple[int, int]


_NOTHING = _Piece("", 0, 0, (0, 0))

# What may follow what: a thought, a query, its passages, a thought, .., the answer. The rest has a code.
_FAULT_BETWEEN = {
    ("", "search"): "missing_reasoning",
    ("", "information"): "context_without_search",
    ("think", "think"): "duplicate_tag",
    ("think", "information"): "context_without_search",
    ("search", "think"): "search_without_context",
    ("search", "search"): "search_without_context",
    ("search", "answer"): "search_without_context",
    ("search", ""): "search_without_context",
    ("information", "search"): "missing_reasoning",
    ("information", "information"): "context_without_search",
    ("information", "answer"): "missing_conclusion",
    ("answer", "think"): "text_after_answer",
    ("answer", "search"): "text_after_answer",
    ("answer", "information"): "text_after_answer",
}
# Prose has no tags to leave out: a model that asks again at once broke no format.
_FREE_IN_PROSE = {"missing_reasoning", "missing_conclusion"}
_EMPTY = {"search": "empty_query", "information": "empty_context", "answer": "empty_answer"}
_UNCLOSED = {"think": "think_unclosed", "answer": "answer_unclosed"}


class TurnReader(Reader):
    """Reads a flat trajectory: every query is a search step, and there is no other kind.

    A step's reasoning is the thought before its query, its conclusion the thought after its passages (which is
    also the next step's reasoning); its span runs from that first thought to the end of the passages.
    """

    def __init__(self, text: str, dialect: str) -> None:
        super().__init__(text, dialect)
        # In r1-searcher the prompt opens the thought, so bare prose is thought until `</think>`.
        self._prose = self._thinking = dialect == "r1-searcher"
        self._pieces: list[_Piece] = []
        self._answered = False

    def read(self) -> None:
        """Fill `steps` and `problems`."""
        at = index = 0
        while index < len(self.tags):
            tag = self.tags[index]
            self._between(at, tag.start)
            if self._thinking and tag.name == "think":
                at, index = self._edge_of_prose(tag), index + 1
            elif tag.closing:
                self.fault("stray_tag", tag.start, tag.end)
                at, index = tag.end, index + 1
            else:
                at, index = self._piece(index)
        end = len(self.text)
        self._between(at, end)
        if self._thinking:
            self.fault("think_unclosed", end, end)
        if not self._prose and all(piece.name != "think" for piece in self._pieces):
            self.fault("no_think", 0, 0)
        if not self._answered:
            self.fault("no_answer", end, end)
        self._check()
        self._turns()
        self.finish()

    def answer(self) -> str | None:
        r"""The last answer, out of its `\boxed{}` if it has one (ReSearch)."""
        answer = last_answer(self.text)
        boxes = _BOXED.findall(answer or "")
        return boxes[-1].strip() if boxes else answer

    def _between(self, start: int, end: int) -> None:
        if not self._thinking:
            self.gap(start, end, "text_after_answer" if self._answered else "stray_text")
        elif self.text[start:end].strip():
            self._pieces.append(_Piece("think", start, end, (start, end)))

    def _edge_of_prose(self, tag: Tag) -> int:
        if tag.closing:
            self._thinking = False
        elif self._pieces:
            self.fault("multi_think", tag.start, tag.end)
        return tag.end

    def _piece(self, index: int) -> tuple[int, int]:
        """Read the pair opened at `index`; give the place and tag to go on from.

        A pair ends at its closer unless the same tag opens again first; then it was never closed, and
        its text ends at the next tag of any kind.
        """
        tag = self.tags[index]
        close = self.following(tag.name, closing=True, after=index)
        again = self.following(tag.name, closing=False, after=index)
        if close is None or (again is not None and again < close):
            self.fault(_UNCLOSED.get(tag.name, "tag_unclosed"), tag.start, tag.end)
            end = self.tags[index + 1].start if index + 1 < len(self.tags) else len(self.text)
            inner, onward = (tag.end, end), index + 1
        else:
            # An answer may quote any tag.
            for stray in self.tags[index + 1 : close] if tag.name != "answer" else ():
                self.fault("stray_tag", stray.start, stray.end)
            inner, end, onward = (tag.end, self.tags[close].start), self.tags[close].end, close + 1
        if tag.name == "answer":
            self._answer_in_prose(index, end)
            self._answered = True
        self._pieces.append(_Piece(tag.name, tag.start, end, inner))
        return end, onward

    def _answer_in_prose(self, index: int, end: int) -> None:
        """An answer ends prose that nothing else ends; otherwise it came too soon."""
        start = self.tags[index].start
        if self._thinking and self.following("think", closing=True, after=index) is None:
            self.fault("think_unclosed", start, start)
            self._thinking = False
        elif self._thinking:
            self.fault("answer_in_think", start, end)

    def _check(self) -> None:
        """Note pieces that are empty or follow what they may not."""
        for second in [piece for piece in self._pieces if piece.name == "answer"][1:]:
            self.fault("multi_answer", second.start, second.end)
        for before, piece in pairwise([_NOTHING, *self._pieces, _NOTHING]):
            code = _FAULT_BETWEEN.get((before.name, piece.name))
            if code is not None and not (self._prose and code in _FREE_IN_PROSE):
                where = before if code == "search_without_context" else piece
                self.fault(code, where.start, where.end)
            if piece.name in _EMPTY and not self._inside(piece):
                self.fault(_EMPTY[piece.name], *piece.inner)

    def _turns(self) -> None:
        pieces = [_NOTHING, *self._pieces, _NOTHING, _NOTHING]
        for k, piece in enumerate(pieces):
            if piece.name != "search":
                continue
            thought = pieces[k - 1] if pieces[k - 1].name == "think" else None
            passages = pieces[k + 1] if pieces[k + 1].name == "information" else None
            after = pieces[k + 2] if passages and pieces[k + 2].name == "think" else None
            self.steps.append(
                {
                    "i": len(self.steps),
                    "kind": "search",
                    "reasoning": self._inside(thought) if thought else "",
                    "query": self._inside(piece),
                    "context": self._inside(passages) if passages else None,
                    "conclusion": self._inside(after) if after else "",
                    "span": [(thought or piece).start, (passages or piece).end],
                    "problems": [],
                }
            )

    def _inside(self, piece: _Piece) -> str:
        return self.text[slice(*piece.inner)].strip()
