"""JSON over HTTP with retries, from many threads, and calls that another thread can cut short.

Calls block their thread; the sockets live on one event loop in a thread of its own, because a task on a loop can be
cancelled at any moment and a thread that reads a socket cannot.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2
import orjson

from toolroll import __version__
from toolroll.errors import RowError, UsageError
from toolroll.io.retry import RETRIABLE_STATUS, retry, retry_after

KEY_VARIABLES = (
    "TOOLROLL_API_KEY",
    "OPENAI_API_KEY",
)  #: where a key is looked for when no file is named, in order
BASE_S = 0.5  #: upper end of the first wait before another try
CAP_S = 30.0  #: upper end of any wait that the server did not ask for
_SHOWN = 300  # characters of a server's message that we repeat


class Reader(Protocol):
    """Takes one answer: a whole JSON value, or one event of a stream after the other."""

    complete: bool  #: whether what was fed is a whole answer

    def feed(self, message: Any) -> bool:
        """Take one JSON value; True to hang up, because nothing more is wanted. Raises RowError."""


R = TypeVar("R", bound=Reader)


class _RefusedError(Exception):
    """The server answered with another status than 2xx."""

    def __init__(self, status: int, message: str, wait_s: float) -> None:
        super().__init__(f"{status}: {message}" if message else f"status {status}")
        self.status = status
        self.wait_s = wait_s


def api_key(file: Path | None = None) -> str | None:
    """The key in `file`, or else in the first set variable of `KEY_VARIABLES`; None when there is none.

    Raises UsageError when the file cannot be read or holds no key. The key itself appears in no message.
    """
    if file is None:
        key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name, "").strip())), None)
        place = "API key"
    else:
        place = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(getattr(error, "strerror", None) or "not a text file", place=place) from error
    if key is not None and (not key or not key.isascii() or not key.isprintable()):
        raise UsageError("does not hold one line of printable ASCII characters", place=place)
    return key


class Wire:
    """Calls to one server.

    base_url: "http://host:port" ("/v1" is added) or a longer address that is kept ("https://host/openai/v1").
    timeout_s: seconds (> 0) for one try, the answer included. tries >= 1, deadline_s: limits of one call over all its
    tries. Failures are `RowError`s whose place is the address, user name and password left out.
    """

    def __init__(
        self, base_url: str, *, key: str | None, connections: int, timeout_s: float, tries: int, deadline_s: float
    ) -> None:
        url = _address(base_url)
        self.place = str(url.copy_with(userinfo=b""))
        self._key = key
        self._timeout_s = timeout_s
        self._tries = tries
        self._deadline_s = deadline_s
        self._closing = threading.Event()
        headers = {"user-agent": f"toolroll/{__version__}", "content-type": "application/json"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.AsyncClient(base_url=url, headers=headers, timeout=None, limits=limits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="toolroll-http", daemon=True)
        self._thread.start()

    def call(self, method: str, path: str, body: object, new_reader: Callable[[], R]) -> R:
        """Send `body` (None: nothing) and return a reader that took the whole answer; each try gets a new reader.

        Tried again: connections that fail or break off, timeouts, `RETRIABLE_STATUS`. Raises RowError.
        """
        content = None if body is None else orjson.dumps(body)

        def attempt() -> R:
            reader = new_reader()
            asyncio.run_coroutine_threadsafe(self._attempt(method, path, content, reader), self._loop).result()
            return reader

        try:
            return retry(
                attempt,
                tries=self._tries,
                base_s=BASE_S,
                cap_s=CAP_S,
                deadline_s=self._deadline_s,
                retriable=_retriable,
                sleep=self._pause,
            )
        except (RowError, _RefusedError, httpx2.HTTPError, TimeoutError, CancelledError) as error:
            raise RowError(self._told(error), place=self.place + path) from error

    def cancel(self) -> None:
        """End every call under way and every later one with a RowError, soon; any thread may ask."""
        self._closing.set()
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(self._loop)])

    def close(self) -> None:
        """Close the connections; to be called once, after `cancel`, when no thread is in `call` any more."""
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _attempt(self, method: str, path: str, content: bytes | None, reader: Reader) -> None:
        if self._closing.is_set():
            raise asyncio.CancelledError
        async with asyncio.timeout(self._timeout_s), self._client.stream(method, path, content=content) as response:
            if not response.is_success:
                wait_s = retry_after(response.headers.get("retry-after"))
                raise _RefusedError(response.status_code, _message(await response.aread()), wait_s)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                await self._follow(response, reader)
            else:
                reader.feed(_parsed(await response.aread()))
                if not reader.complete:
                    raise RowError("the answer lacks what was asked for")

    async def _follow(self, response: httpx2.Response, reader: Reader) -> None:
        async for event in httpx2.EventSource(response):
            if event.data.strip() == "[DONE]":
                break
            if event.data and reader.feed(_parsed(event.data)):
                return
        if not reader.complete:
            raise httpx2.RemoteProtocolError("the stream ended before the answer did")

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise CancelledError

    def _told(self, error: Exception) -> str:
        if isinstance(error, CancelledError):
            return "cancelled"
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout_s:g} s"
        why = " ".join(str(error).split()) or type(error).__name__
        return why.replace(self._key, "***") if self._key else why


def _address(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url.rstrip("/"))
    except httpx2.InvalidURL as error:
        raise UsageError(f"not an address ({error})", place="base_url") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError("an address looks like http://host:port or https://host/v1", place="base_url")
    return url if url.path.strip("/") else url.copy_with(path="/v1")


def _retriable(error: Exception) -> float | None:
    if isinstance(error, _RefusedError):
        return error.wait_s if error.status in RETRIABLE_STATUS else None
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return None
    return 0.0 if isinstance(error, httpx2.TransportError | TimeoutError) else None


def _parsed(data: bytes | str) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RowError(f"the answer is not JSON ({error})") from error


def _message(content: bytes) -> str:
    """The server's own words out of an error body, on one line."""
    try:
        found: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = content.decode("utf-8", errors="replace")
    while isinstance(found, dict):
        found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), "")
    return " ".join(str(found).split())[:_SHOWN]
