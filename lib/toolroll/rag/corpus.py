r"""Passages: reading them, making them safe to put into a trajectory, trimming and rendering them.

A corpus row is `{"id", "contents": "\"Title\"\ntext"}` (Search-R1, FlashRAG) or `{"id", "title", "text"}` (DPR). The
rendering, `Doc 1(Title: "Paris") text`, is the one Search-R1 and HiPRAG (arXiv:2510.07794) train with.

The text of a passage is not ours: one that holds `</context>` or `<|im_end|>` would end the observation it stands in.
So the `<` of every tag that some trajectory dialect knows is replaced by `‹` before the passage is used, and counted.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NotRequired, TypedDict

import orjson

from toolroll.errors import RowError, ToolrollError

NO_HITS = "No passages found.\n"  #: what a search that finds nothing shows: an empty context is malformed in HiPRAG

#: tag names of the dialects: HiPRAG, Search-R1 and ZeroSearch (information), ReSearch (result), R1-Searcher (documents)
TAGS = (
    "think",
    "step",
    "reasoning",
    "search",
    "context",
    "conclusion",
    "answer",
    "information",
    "result",
    "documents",
)
# `<step>`, `</step>`, `<step n="1">`, `<step/>`; and `<|anything|>`: R1-Searcher's marks and chat templates' tokens
_OPENING = re.compile(rf"<(?=\s*/?\s*(?:{'|'.join(TAGS)})(?:[\s/][^<>]*)?>|\|[^<>|\s]+\|>)", re.IGNORECASE)


class Passage(TypedDict):
    """One passage of a corpus. `title` is kept as the corpus spells it: with quotes or without."""

    id: str
    title: str
    text: str


class Hit(Passage):
    """A passage found for a query. `score`: higher is better, its unit is the retriever's; None when not told."""

    score: float | None
    cached: NotRequired[bool]  #: whether it came from a cache; set by `CachedRetriever` only


def to_passage(row: object) -> Passage:
    r"""The passage in a corpus row or in a retrieval server's document.

    `title` and `text` win over `contents`, whose first line is the title. A row without an id gets the digest of its
    text as one. RowError when there is no text to be had.

    >>> to_passage({"id": 7, "contents": '"Paris"\nParis is a city.'})
    {'id': '7', 'title': '"Paris"', 'text': 'Paris is a city.'}
    """
    if not isinstance(row, Mapping):
        raise RowError(f"a passage is an object, not {type(row).__name__}")
    title, text, contents = row.get("title"), row.get("text"), row.get("contents")
    if isinstance(contents, str) and not (isinstance(title, str) and isinstance(text, str)):
        title, _, text = contents.partition("\n")
    if not isinstance(text, str):
        raise RowError('a passage needs "contents", or "title" and "text"')
    title = " ".join(title.split()) if isinstance(title, str) else ""
    known_as = row.get("id")
    if known_as is None or known_as == "":
        known_as = "blake2b:" + blake2b(f"{title}\n{text}".encode("utf-8", "replace"), digest_size=8).hexdigest()
    return Passage(id=str(known_as), title=title, text=text)


def to_hit(row: object) -> Hit:
    """The hit in `{"document": {...}, "score": s}` or in a bare document that may carry a score itself.

    >>> to_hit({"document": {"id": "7", "title": "Paris", "text": "A city."}, "score": 1})
    {'id': '7', 'title': 'Paris', 'text': 'A city.', 'score': 1.0}
    """
    if isinstance(row, str):
        row = {"contents": row}
    document = row.get("document", row) if isinstance(row, Mapping) else row
    score = row.get("score") if isinstance(row, Mapping) else None
    number = float(score) if isinstance(score, int | float) and not isinstance(score, bool) else None
    return scored(to_passage(document), number)


def scored(passage: Passage, score: float | None) -> Hit:
    """A passage as a hit."""
    return Hit(id=passage["id"], title=passage["title"], text=passage["text"], score=score)


def read_corpus(path: Path) -> Iterator[Passage]:
    """The passages of a JSONL file, gzipped if its name ends in .gz; blank lines are skipped.

    ToolrollError with `file:line` for what is not a passage, with the file for what cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, f"{path}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise ToolrollError(getattr(error, "strerror", None) or str(error), place=str(path)) from error


def _parse(line: bytes, place: str) -> Passage:
    try:
        return to_passage(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise RowError(f"not JSON ({error})", place=place) from error
    except RowError as error:
        raise RowError(error.why, place=place) from error


def quoted(title: str) -> str:
    """The title in double quotes, as Search-R1's corpora write it; one that has them is left alone.

    >>> quoted("Paris"), quoted('"Paris"')
    ('"Paris"', '"Paris"')
    """
    return title if len(title) > 1 and title[0] == title[-1] == '"' else f'"{title}"'


def contents(passage: Passage | Hit) -> str:
    """Title and text in one string, Search-R1's `contents`: what servers send and dense encoders read."""
    return f"{quoted(passage['title'])}\n{passage['text']}"


def sanitise(text: str) -> tuple[str, int]:
    """`text` with the `<` of every known tag replaced by `‹`, and how many there were.

    >>> sanitise("a </context> b <i>c</i> 1 < 2")
    ('a ‹/context> b <i>c</i> 1 < 2', 1)
    """
    return _OPENING.subn("‹", text)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Passages as they go into a trajectory, and what was done to them."""

    text: str
    docs: int  #: how many passages are in `text`, the last one perhaps cut
    truncated: bool  #: whether passages or parts of them were left out to fit the budget
    neutralised: int  #: how many tags were made harmless


def render(
    hits: Iterable[Passage | Hit], *, budget: int | None = None, count: Callable[[str], int] | None = None
) -> Rendered:
    r"""`Doc {i}(Title: {title}) {text}` for each hit, i from 1, one a line; `NO_HITS` when there is none.

    With a `budget` [tokens] and `count` (tokens of a string), passages are cut from the end, at a blank if one is near,
    until the text fits. That happens before anything is wrapped around it, so closing tags are never cut off.

    >>> render([{"id": "1", "title": "Paris", "text": "A city."}]).text
    'Doc 1(Title: "Paris") A city.\n'
    """
    docs: list[tuple[str, str]] = []
    neutralised = 0
    for number, hit in enumerate(hits, start=1):
        title, in_title = sanitise(quoted(hit["title"]))
        text, in_text = sanitise(hit["text"])
        docs.append((f"Doc {number}(Title: {title}) ", f"{text}\n"))
        neutralised += in_title + in_text
    text = "".join(head + body for head, body in docs) or NO_HITS
    if budget is None or count is None or count(text) <= budget:
        return Rendered(text, len(docs), False, neutralised)
    text, kept = _fit(docs, budget, count)
    return Rendered(text, kept, True, neutralised)


_BLANK_WITHIN = 30  # characters to go back from a cut to find a blank


def _fit(docs: Sequence[tuple[str, str]], budget: int, count: Callable[[str], int]) -> tuple[str, int]:
    """The longest beginning of the rendered docs that has at most `budget` tokens, and how many docs it touches."""
    whole = ""
    for number, (head, body) in enumerate(docs):
        if count(whole + head + body) <= budget:
            whole += head + body
            continue
        fits, too_long = 0, len(body)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if count(f"{whole}{head}{body[:middle]}\n") <= budget:
                fits = middle
            else:
                too_long = middle
        blank = body.rfind(" ", max(0, fits - _BLANK_WITHIN), fits + 1)
        cut = body[: blank if blank > 0 else fits].rstrip()
        text = f"{whole}{head}{cut}\n"
        return (text, number + 1) if cut and count(text) <= budget else (whole, number)
    return whole, len(docs)
