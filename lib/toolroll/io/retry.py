"""Try a call again after a passing failure: full jitter, the wait a server asks for, a deadline.

The wait before try n + 1 (n from 1) is drawn evenly from [0, min(cap, base * 2^(n-1))] ("full jitter": M. Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015), but is never shorter than what the server asked for
in `Retry-After` (RFC 9110, section 10.2.3).
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")

RETRIABLE_STATUS = frozenset({429, 500, 502, 503, 504})  #: HTTP answers that another try may mend


def retry(
    call: Callable[[], T],
    *,
    tries: int,
    base_s: float,
    cap_s: float,
    deadline_s: float,
    retriable: Callable[[Exception], float | None],
    sleep: Callable[[float], object] = time.sleep,
    rng: random.Random | None = None,
) -> T:
    """Return `call()`, trying up to `tries` times (>= 1) within `deadline_s` seconds.

    `retriable` says of an exception: None, not worth another try; else the least seconds to wait (0 when free).
    The exception of the last try is raised when tries run out or the next wait would pass the deadline. A seeded
    `rng` makes the waits repeatable.

    >>> answers = iter([OSError("busy"), "ok"])
    >>> def call():
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> retry(call, tries=2, base_s=0.5, cap_s=8, deadline_s=60, retriable=lambda _: 0.0, sleep=lambda _: None)
    'ok'
    """
    rng = rng or random.Random()
    started = time.monotonic()
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            asked = retriable(error)
            if asked is None or attempt == tries:
                raise
            wait = max(asked, rng.uniform(0, min(cap_s, base_s * 2 ** min(attempt - 1, 60))))
            if time.monotonic() - started + wait > deadline_s:
                raise
            sleep(wait)
    raise ValueError(f"tries must be at least 1, not {tries}")


def http_retriable(error: Exception) -> float | None:
    """`retriable` for calls made with httpx2: the wait in seconds that `error` asks for, None when not worth a try.

    Worth another try: a connection that fails or breaks off, a timeout, and an `HTTPStatusError` (what
    `Response.raise_for_status` raises) with a status in `RETRIABLE_STATUS`.
    """
    import httpx2

    if isinstance(error, httpx2.HTTPStatusError):
        response = error.response
        return retry_after(response.headers.get("Retry-After")) if response.status_code in RETRIABLE_STATUS else None
    passing = isinstance(error, httpx2.TimeoutException | httpx2.NetworkError | httpx2.RemoteProtocolError)
    return 0.0 if passing else None


def retry_after(value: str | None, *, now: datetime | None = None) -> float:
    """Seconds (>= 0) that a `Retry-After` header asks for: a count or an HTTP date; 0 when absent or unreadable.

    >>> retry_after("3"), retry_after(None), retry_after("soon")
    (3.0, 0.0, 0.0)
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
