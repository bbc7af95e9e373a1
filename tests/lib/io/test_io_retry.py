"""retry: how often, how long, and when not."""

import random
from datetime import UTC, datetime

import httpx2
import pytest

from toolroll.io.retry import http_retriable, retry, retry_after


class Flaky:
    """Fails the first `failures` times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self.failures = failures
        self.error = error or OSError("busy")

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "ok"


def attempt(call, *, tries=5, deadline_s=1e9, retriable=lambda _: 0.0, seed=0, base_s=1.0, cap_s=4.0):
    waits: list[float] = []
    result = None
    try:
        result = retry(
            call,
            tries=tries,
            base_s=base_s,
            cap_s=cap_s,
            deadline_s=deadline_s,
            retriable=retriable,
            sleep=waits.append,
            rng=random.Random(seed),
        )
    except OSError as error:
        result = error
    return result, waits


def test_succeeds_after_failures():
    call = Flaky(3)
    result, waits = attempt(call)
    assert result == "ok"
    assert call.calls == 4
    assert len(waits) == 3


def test_raises_the_last_error_when_tries_run_out():
    call = Flaky(9)
    result, waits = attempt(call, tries=3)
    assert isinstance(result, OSError)
    assert call.calls == 3
    assert len(waits) == 2


def test_jitter_is_full_capped_and_seeded():
    _, waits = attempt(Flaky(7), tries=8, seed=7)
    bounds = [1, 2, 4, 4, 4, 4, 4]
    draws = random.Random(7)
    assert waits == [draws.uniform(0, bound) for bound in bounds]
    assert attempt(Flaky(7), tries=8, seed=7)[1] == waits
    assert attempt(Flaky(7), tries=8, seed=8)[1] != waits


def test_many_tries_do_not_overflow():
    result, waits = attempt(Flaky(2000), tries=2001)
    assert result == "ok"
    assert max(waits) <= 4.0


def test_what_the_server_asks_for_is_the_least_wait():
    _, waits = attempt(Flaky(3), retriable=lambda _: 30.0)
    assert waits == [30.0, 30.0, 30.0]


def test_not_retriable_is_raised_at_once():
    call = Flaky(1)
    result, waits = attempt(call, retriable=lambda _: None)
    assert isinstance(result, OSError)
    assert (call.calls, waits) == (1, [])


def test_gives_up_rather_than_sleep_past_the_deadline():
    call = Flaky(1)
    result, waits = attempt(call, deadline_s=5.0, retriable=lambda _: 6.0)
    assert isinstance(result, OSError)
    assert (call.calls, waits) == (1, [])


def test_no_tries_is_a_mistake():
    with pytest.raises(ValueError, match="at least 1"):
        attempt(Flaky(0), tries=0)


def test_retry_after_forms():
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after("Thu, 01 Jan 2026 12:00:07 GMT", now=now) == 7.0
    assert retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now=now) == 0.0
    assert retry_after(" 12 ") == 12.0
    assert [retry_after(value) for value in (None, "", "-3", "soon", "٣")] == [0.0] * 5


def status_error(status: int, **headers: str) -> httpx2.HTTPStatusError:
    request = httpx2.Request("POST", "http://host/")
    response = httpx2.Response(status, headers=headers, request=request)
    return httpx2.HTTPStatusError("", request=request, response=response)


def test_http_retriable():
    for status in (429, 500, 502, 503, 504):
        assert http_retriable(status_error(status)) == 0.0
    for status in (301, 400, 401, 404, 422, 501):
        assert http_retriable(status_error(status)) is None
    assert http_retriable(status_error(503, **{"Retry-After": "4"})) == 4.0
    for passing in (
        httpx2.ConnectError(""),
        httpx2.ReadTimeout(""),
        httpx2.RemoteProtocolError(""),
        httpx2.ReadError(""),
    ):
        assert http_retriable(passing) == 0.0
    for lasting in (httpx2.UnsupportedProtocol(""), httpx2.TooManyRedirects(""), ValueError()):
        assert http_retriable(lasting) is None
