"""A cache on disk that several processes and threads can share: searches, re-answers, verdicts.

One SQLite file in write-ahead mode. A key is the BLAKE2b digest of what determines the value (kind of call, model,
settings, request), so a changed setting can never return an old value. Values are JSON.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson

from toolroll.errors import ToolrollError
from toolroll.io.retry import retry

T = TypeVar("T")

APPLICATION_ID = 0x746F6F6C  #: "tool", in the header of the file: tells our files from other SQLite files
VERSION = 1  #: of the table below; a file with another one is refused
BUSY_S = 30.0  #: how long a call waits for another process that writes
_CHUNK = 500  # keys a query; SQLite allows 32,766 parameters, older builds 999


def cache_key(kind: str, model: str, settings: object, request: object) -> bytes:
    """The key [32 bytes] of a call: BLAKE2b-256 of the JSON of its four parts, dict keys sorted.

    `kind` names what is cached ("search", "verdict"), `model` what computes it, weights included when it has any.

    >>> cache_key("search", "bm25", {"topk": 3}, "paris") == cache_key("search", "bm25", {"topk": 3}, "paris")
    True
    >>> cache_key("search", "bm25", {"topk": 3}, "paris") == cache_key("search", "bm25", {"topk": 5}, "paris")
    False
    """
    parts = orjson.dumps([kind, model, settings, request], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(parts, digest_size=32).digest()


class Cache:
    """A key-value store in the SQLite file `path`, made when missing; None keeps it in memory.

    Safe for several threads (one connection behind a lock) and several processes (write-ahead mode where the file
    system can do it, waits of up to `BUSY_S` seconds). Not to be carried over a fork: open it in the child.
    Every failure is a `ToolrollError` that names the file.
    """

    def __init__(self, path: Path | str | None) -> None:
        self.place = ":memory:" if path is None else str(path)
        self._lock = threading.Lock()
        if path is not None:
            self._guard(lambda: Path(path).parent.mkdir(parents=True, exist_ok=True))
        self._db = self._guard(
            lambda: sqlite3.connect(self.place, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        )
        try:
            self._guard(self._prepare)
        except BaseException:
            self._db.close()
            raise

    def get(self, key: bytes) -> Any:
        """The value stored under `key`; None when there is none."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Any]:
        """The stored values of those `keys` that have one."""
        wanted = list(dict.fromkeys(keys))
        chunks = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
        rows = self._guard(lambda: [row for chunk in chunks for row in self._select(chunk)])
        return {key: self._decode(value) for key, value in rows}

    def put(self, key: bytes, value: object) -> None:
        """Store `value` (anything JSON can say, None excepted) under `key`, in place of what was there."""
        self.put_many({key: value})

    def put_many(self, entries: Mapping[bytes, object]) -> None:
        """Store all `entries` in one transaction: all of them or, after a failure, none."""
        if any(value is None for value in entries.values()):
            raise ValueError("None cannot be stored: get() could not tell it from a missing value")
        rows = [(key, orjson.dumps(value)) for key, value in entries.items()]
        if rows:
            self._guard(lambda: self._write(rows))

    def __len__(self) -> int:
        count: int = self._guard(lambda: self._db.execute("SELECT count(*) FROM entries").fetchone()[0])
        return count

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        with self._transaction("DEFERRED"):  # one view of the file: another process may be making it
            owner, version, tables = self._db.execute(
                "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
                " FROM pragma_application_id, pragma_user_version"
            ).fetchone()
        if owner != APPLICATION_ID and (owner or tables):
            raise ToolrollError("is an SQLite file of something else, not a toolroll cache", place=self.place)
        if version not in (0, VERSION):
            raise ToolrollError(f"has cache version {version}, this toolroll reads {VERSION}", place=self.place)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if owner != APPLICATION_ID:
            with self._transaction("IMMEDIATE"):
                self._db.execute("CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[None]:
        self._db.execute(f"BEGIN {mode}")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _select(self, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        marks = ",".join("?" * len(keys))
        return self._db.execute(f"SELECT key, value FROM entries WHERE key IN ({marks})", keys).fetchall()

    def _write(self, rows: list[tuple[bytes, bytes]]) -> None:
        with self._transaction("IMMEDIATE"):
            self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)

    def _decode(self, value: bytes) -> Any:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ToolrollError(f"the cache holds a damaged value ({error})", place=self.place) from error

    def _guard(self, call: Callable[[], T]) -> T:
        """`call()` under the lock, again while another process holds the file, its failures told with the path."""
        try:
            with self._lock:
                return retry(call, tries=20, base_s=0.01, cap_s=1.0, deadline_s=BUSY_S, retriable=_busy)
        except sqlite3.ProgrammingError as error:
            raise ToolrollError("the cache is closed", place=self.place) from error
        except sqlite3.DatabaseError as error:
            raise ToolrollError(f"the cache cannot be used ({error})", place=self.place) from error
        except OSError as error:
            raise ToolrollError(error.strerror or str(error), place=self.place) from error


def _busy(error: Exception) -> float | None:
    """0 when another process holds the file: SQLite's own wait does not cover every such moment (the switch to WAL)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return 0.0 if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else None
