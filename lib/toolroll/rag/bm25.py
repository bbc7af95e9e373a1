"""BM25 over an index folder (the bm25s library, Lucene's variant): the retriever that needs no model and no server.

score(q, d) = sum over the words t of q of  idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avg|d|)),
idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)),
where tf counts t in d, |d| is the number of words in d, N the number of passages, df how many of them hold t. A word
that a query repeats counts as often. Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020; bm25s: arXiv:2407.03618.

bm25s computes the score of each word in each passage when the index is built (float32) and adds them up at a search.
Its own choice of the best k leaves ties to chance, so ours is used (`top_k`).

    DIR/bm25/   what bm25s saves: data, indices, indptr (.npy, memory-mapped), the vocabulary and its parameters
"""

import re
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from toolroll.errors import ToolrollError, UsageError
from toolroll.rag.corpus import Hit, Passage
from toolroll.rag.index import Corpus, new_index, read_manifest, top_k, write_corpus, write_manifest

_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
ENGLISH = tuple(_ENGLISH.split())  #: Lucene's English stop words


@dataclass(frozen=True, slots=True)
class Bm25Settings:
    """How words are found and weighted; kept in the index, so that queries are read as the passages were.

    k1 >= 0, 0 <= b <= 1. `pattern` finds the words of the lower-cased text; `stopwords` are left out; `stemmer` is
    empty or the name of a PyStemmer algorithm ("english").
    """

    k1: float = 1.5
    b: float = 0.75
    pattern: str = r"(?u)\b\w\w+\b"
    stopwords: tuple[str, ...] = ENGLISH
    stemmer: str = ""


def tokenizer(settings: Bm25Settings) -> Callable[[str], list[str]]:
    """The function from a text to its words.

    >>> tokenizer(Bm25Settings())("Who was the Mayor of Paris?")
    ['who', 'mayor', 'paris']
    """
    find = re.compile(settings.pattern).findall
    dropped = frozenset(settings.stopwords)
    if not settings.stemmer:
        return lambda text: [word for word in find(text.lower()) if word not in dropped]
    try:
        import Stemmer
    except ImportError as error:
        raise UsageError("stemming needs PyStemmer: pip install PyStemmer") from error
    try:
        stem = Stemmer.Stemmer(settings.stemmer).stemWords
    except KeyError as error:
        raise UsageError(f"PyStemmer has no algorithm {settings.stemmer!r}") from error
    return lambda text: stem([word for word in find(text.lower()) if word not in dropped])


def build_bm25(
    passages: Iterable[Passage],
    directory: Path,
    *,
    settings: Bm25Settings | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Index `passages` into the folder `directory` and return the index's manifest.

    One pass over the passages; memory grows with the number of words (about 40 bytes each at the peak).
    ToolrollError when there is nothing to index or the folder is taken (see `new_index`).
    """
    bm25s = _library()

    settings = settings or Bm25Settings()
    words = tokenizer(settings)
    vocabulary: dict[str, int] = {}
    with new_index(directory, replace=replace) as folder:
        ids = [
            array("i", (vocabulary.setdefault(word, len(vocabulary)) for word in words(_indexed(passage))))
            for passage in write_corpus(folder, passages)
        ]
        manifest = write_manifest(folder, "bm25", asdict(settings))
        if not vocabulary:
            raise ToolrollError("no passage has a word to index")
        engine = bm25s.BM25(k1=settings.k1, b=settings.b, method="lucene", backend="numpy")
        engine.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        engine.save(folder / "bm25", show_progress=False)
    return manifest


def _library() -> Any:
    """bm25s without numba, which it would import if it is there, for a way of searching not used here.

    That import takes a second, and vLLM's CPU build fails to start in a process that has it.
    """
    absent = "numba" not in sys.modules
    if absent:
        sys.modules["numba"] = None  # type: ignore[assignment]
    try:
        import bm25s
    finally:
        if absent:
            del sys.modules["numba"]
    return bm25s


def _indexed(passage: Passage) -> str:
    return f"{passage['title']}\n{passage['text']}"


class Bm25Retriever:
    """Search in a folder that `build_bm25` made. Safe for several threads."""

    def __init__(self, directory: Path) -> None:
        directory = Path(directory)
        manifest = read_manifest(directory, "bm25")
        self._words = tokenizer(_settings(manifest["settings"], directory))
        self._engine = _load(directory / "bm25")
        self._vocabulary: dict[str, int] = self._engine.vocab_dict
        self._corpus = Corpus(directory)
        self.name = f"bm25:{directory}"
        settings_hash = blake2b(orjson.dumps(manifest["settings"]), digest_size=8).hexdigest()
        self.identity = f"bm25:{manifest['corpus']['blake2b']}:{settings_hash}"

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Up to `topk` (>= 1) hits for each query: score > 0, best first, ties in the order of the corpus.

        A query without a word that the corpus knows has no hits.
        """
        return [self._search(query, topk) for query in queries]

    def close(self) -> None:
        """Close the passages."""
        self._corpus.close()

    def _search(self, query: str, topk: int) -> list[Hit]:
        ids = [self._vocabulary[word] for word in self._words(query) if word in self._vocabulary]
        if not ids:
            return []
        scores = self._engine.get_scores_from_ids(ids)
        best = top_k(scores, topk, above=0.0)
        return self._corpus.hits(best, scores[best])


def _settings(stored: dict[str, Any], directory: Path) -> Bm25Settings:
    try:
        return Bm25Settings(**{**stored, "stopwords": tuple(stored["stopwords"])})
    except (KeyError, TypeError) as error:
        raise ToolrollError(f"the index has unknown settings ({error})", place=str(directory)) from error


def _load(folder: Path) -> Any:
    """The bm25s engine saved in `folder`, its arrays memory-mapped (as plain arrays: memmap's are slow to slice)."""
    bm25s = _library()

    try:
        engine = bm25s.BM25.load(folder, mmap=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolrollError(f"the index is damaged ({error})", place=str(folder)) from error
    engine.scores.update({name: np.asarray(engine.scores[name]) for name in ("data", "indices", "indptr")})
    return engine
