"""An index folder: passages on disk, a manifest, and whatever the engine adds; and the one way hits are ranked.

    DIR/manifest.json   format, version, kind, settings, corpus {count, blake2b}; its presence says the rest is complete
    DIR/corpus.jsonl    one passage a line: {"id", "title", "text"}
    DIR/offsets.npy     int64 [count + 1]: where each line of corpus.jsonl begins, and its end

A folder is built under another name beside its place and renamed when it is complete. The same passages and settings
give the same bytes.
"""

import mmap
import secrets
import shutil
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson

from toolroll.errors import ToolrollError
from toolroll.rag.corpus import Hit, Passage, scored

FORMAT = "toolroll-index"
VERSION = 1
MANIFEST = "manifest.json"
_BLOCK = 256  # scores a block of `top_k`; the largest of each block is looked at first


def top_k(scores: npt.NDArray[np.float32], k: int, *, above: float = -np.inf) -> npt.NDArray[np.intp]:
    """Positions of the `k` largest of `scores` [N] that exceed `above`: largest first, ties by position.

    No full sort and no partition (which is slow on scores that are mostly 0): the k-th largest of the maxima of blocks
    is a lower bound of the k-th largest score, so only what reaches it is sorted.

    >>> top_k(np.array([1, 3, 0, 3, 2], np.float32), 3, above=0).tolist()
    [1, 3, 4]
    """
    bound = above
    size = min(_BLOCK, len(scores) // k)
    if size > 1:
        blocks = len(scores) // size
        maxima = scores[: blocks * size].reshape(blocks, size).max(axis=1)
        bound = float(np.partition(maxima, -k)[-k])
    candidates = np.flatnonzero(scores >= bound if bound > above else scores > above)
    return candidates[np.argsort(-scores[candidates], kind="stable")[:k]]


def write_corpus(folder: Path, passages: Iterable[Passage]) -> Iterator[Passage]:
    """Write `passages` into `folder` and hand each on, so that an index is built in one pass over them."""
    offsets = array("q", [0])
    with (folder / "corpus.jsonl").open("wb") as file:
        for passage in passages:
            line = orjson.dumps({"id": passage["id"], "title": passage["title"], "text": passage["text"]}) + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            yield passage
    np.save(folder / "offsets.npy", np.frombuffer(offsets, dtype=np.int64))


def write_manifest(folder: Path, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Write and return the manifest of a complete folder; ToolrollError when its corpus is empty."""
    count = len(np.load(folder / "offsets.npy")) - 1
    if not count:
        raise ToolrollError("no passages: there is nothing to index")
    digest = blake2b(digest_size=16)
    with (folder / "corpus.jsonl").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    corpus = {"count": count, "blake2b": digest.hexdigest()}
    manifest = {"format": FORMAT, "version": VERSION, "kind": kind, "settings": settings, "corpus": corpus}
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    return manifest


@contextmanager
def new_index(directory: Path, *, replace: bool = False) -> Iterator[Path]:
    """A fresh folder to build in; it becomes `directory` when the block ends well and vanishes when it does not.

    ToolrollError when `directory` exists, unless it is empty, or an index and `replace` is set.
    """
    directory = Path(directory)
    _check_free(directory, replace=replace)
    mark = secrets.token_hex(4)
    folder, old = (directory.parent / f".{directory.name}.{mark}.{suffix}" for suffix in ("tmp", "old"))
    try:
        folder.mkdir(parents=True)
        yield folder
        _check_free(directory, replace=replace)
        _swap(folder, directory, old)
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(error.filename or directory)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)


def _swap(folder: Path, directory: Path, old: Path) -> None:
    """Rename `folder` to `directory`; what stood there goes to `old`, and back when the second rename fails."""
    if not directory.exists():
        folder.rename(directory)
        return
    directory.rename(old)
    try:
        folder.rename(directory)
    except BaseException:
        old.rename(directory)
        raise


def _check_free(directory: Path, *, replace: bool) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ToolrollError("exists and is not a folder", place=str(directory))
    if any(directory.iterdir()):
        if not (directory / MANIFEST).is_file():
            raise ToolrollError("the folder exists and is not an index", place=str(directory))
        if not replace:
            raise ToolrollError("the index exists already", place=str(directory))


def read_manifest(directory: Path, kind: str) -> dict[str, Any]:
    """The manifest of an index of this `kind`; ToolrollError when there is none or it is of another make."""
    path = Path(directory) / MANIFEST
    try:
        manifest = orjson.loads(path.read_bytes())
        found = (manifest["format"], manifest["version"], manifest["kind"])
        complete = {"settings", "corpus"} <= manifest.keys() and {"count", "blake2b"} <= manifest["corpus"].keys()
    except FileNotFoundError as error:
        raise ToolrollError(
            "no index here (manifest.json is missing); rag-index makes one", place=str(directory)
        ) from error
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ToolrollError("not the manifest of an index", place=str(path)) from error
    if found != (FORMAT, VERSION, kind) or not complete:
        wanted = f"{FORMAT} version {VERSION}, kind {kind}"
        raise ToolrollError(f"is {found[0]} version {found[1]}, kind {found[2]}; wanted {wanted}", place=str(path))
    return cast("dict[str, Any]", manifest)


def load_array(path: Path) -> npt.NDArray[Any]:
    """The array in a .npy file, memory-mapped: pages are read when they are used. ToolrollError when damaged."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ToolrollError(f"the index is damaged ({error})", place=str(path)) from error


class Corpus:
    """The passages of an index folder, read from disk when asked for; safe for several threads."""

    def __init__(self, directory: Path) -> None:
        path = Path(directory) / "corpus.jsonl"
        self._offsets = load_array(Path(directory) / "offsets.npy")
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ToolrollError(f"the index is damaged ({error})", place=str(path)) from error
        if len(self._bytes) != self._offsets[-1]:
            self.close()
            raise ToolrollError("the index is damaged: the corpus and its offsets differ in length", place=str(path))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> Passage:
        passage: Passage = orjson.loads(self._bytes[self._offsets[position] : self._offsets[position + 1]])
        return passage

    def hits(self, positions: npt.NDArray[np.intp], scores: npt.NDArray[np.float32]) -> list[Hit]:
        """The passages at `positions` [k] with their `scores` [k], rounded to six digits."""
        pairs = zip(positions.tolist(), scores.tolist(), strict=True)
        return [scored(self[position], round(score, 6)) for position, score in pairs]

    def close(self) -> None:
        """Unmap the passages; nothing can be read afterwards."""
        self._bytes.close()
