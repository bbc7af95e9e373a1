"""Running many episodes at once on one engine.

An episode is a generator that describes what happens to one record. It yields what it needs (its *effects*)
and is sent the answer: a `Generate` is answered by the engine with a `Completion`, anything else (a search,
say) by the caller's batch handler, in a thread, so that a slow retriever does not hold up the model. What the
generator returns is its result.

    def episode(question):
        done = yield Generate(question, None, Sampling(stop=("</search>",)))
        hits = yield Search(done.text)
        ...
        return trajectory
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeAlias

from toolroll.errors import RowError, Stopped, ToolrollError, UsageError
from toolroll.models.base import Completion, Generate, TextEngine

Episode: TypeAlias = Generator[Any, Any, Any]
Calls: TypeAlias = Callable[[list[Any]], Sequence[Any]]
_NOT_OF_ONE_ROW = (UsageError, Stopped)
_IDLE_S = 0.05  # how often to look for a new episode while all others wait for the handler


@dataclass(frozen=True, slots=True)
class Fork:
    """An effect: run these episodes at once. Its answer is the list of their results, in order."""

    episodes: Sequence[Episode]


def drive(
    engine: TextEngine,
    episodes: Iterable[tuple[Hashable, Episode]],
    *,
    calls: Calls | None = None,
    ordered: bool = False,
    window: int | None = None,
    lookahead: int | None = None,
    workers: int = 2,
    ready: Callable[[], bool] = lambda: True,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Hashable, Any]]:
    """Run `episodes` ((key, generator) pairs, keys unique) and yield (key, result), as they end or in input order.

    At most `engine.capacity` + `lookahead` (a quarter of it when None) are under way; the iterable is pulled only
    when there is room. With `ordered`, a result waits for those before it, and no episode starts that is `window`
    (four times that many when None) or more places after the first unfinished one.

    `calls` answers a list of effects with as many results; an Exception in the list, or one it raises, is thrown into
    the episode, as is one from the engine. Up to `workers` calls of it run at a time, in threads. An episode that ends
    with a RowError, or lets the exception through that was thrown into it, has that as its result; any other
    exception ends everything, as do UsageError and Stopped.

    While `ready()` is false the next pair would have to be waited for: it is pulled only when there is nothing else
    to do. Once `stop()` is true no episode is started, and those under way are finished.
    """
    most = engine.capacity + (max(1, engine.capacity // 4) if lookahead is None else lookahead)
    source = iter(episodes)
    driver = _Driver(engine, calls, workers)
    order = _InOrder(window or 4 * most) if ordered else _AsTheyCome()
    ended = False
    try:
        while not (ended and not driver.live):
            while len(driver.live) < most and order.has_room() and (ready() or not driver.live):
                if ended := ended or stop():
                    break
                try:
                    key, episode = next(source)
                except StopIteration:
                    ended = True
                    break
                order.start(key)
                driver.start(key, episode)
            for key, result in driver.work():
                yield from order.end(key, result)
    finally:
        driver.close()


def complete(engine: TextEngine, requests: Iterable[Generate]) -> list[Completion | Exception]:
    """Complete independent texts, in order; an exception stands in the place of its request only."""

    def episode(request: Generate) -> Episode:
        return (yield request)

    pairs = ((("complete", i), episode(request)) for i, request in enumerate(requests))
    return [result for _, result in drive(engine, pairs, ordered=True)]


@dataclass(slots=True)
class _Gathering:
    """The results of a fork, as they come in."""

    results: list[Any]
    missing: int


class _Driver:
    """Keeps the engine, the handler's threads and the generators going; `live` holds the episodes under way."""

    def __init__(self, engine: TextEngine, calls: Calls | None, workers: int) -> None:
        self.live: dict[Hashable, Episode] = {}
        self._engine = engine
        self._calls = calls
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._writing: set[Hashable] = set()
        self._asked: list[tuple[Hashable, Any]] = []
        self._running: dict[Future[Sequence[Any]], list[Hashable]] = {}
        self._ended: list[tuple[Hashable, Any]] = []
        self._parents: dict[Hashable, tuple[Hashable, int]] = {}
        self._forks: dict[Hashable, _Gathering] = {}

    def start(self, key: Hashable, episode: Episode) -> None:
        if key in self.live:
            raise ToolrollError("two episodes under way have this key", place=str(key))
        self.live[key] = episode
        self._resume(key, None)

    def work(self) -> list[tuple[Hashable, Any]]:
        """Do what can be done now, wait a moment when there is nothing, return what ended."""
        self._ask()
        if self._writing:
            for key, result in self._engine.poll():
                if key in self._writing:
                    self._writing.discard(key)
                    self._resume(key, result)
        elif self._running:
            wait(self._running, timeout=_IDLE_S, return_when=FIRST_COMPLETED)
        for future in [future for future in self._running if future.done()]:
            for key, result in zip(keys := self._running.pop(future), _results(future, len(keys)), strict=True):
                self._resume(key, result)
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        for key, episode in self.live.items():
            episode.close()
            self._engine.release(key)
        self.live.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _resume(self, key: Hashable, answer: Any) -> None:
        episode = self.live[key]
        try:
            effect = episode.throw(answer) if isinstance(answer, Exception) else episode.send(answer)
        except StopIteration as end:
            self._end(key, end.value)
        except Exception as error:
            if isinstance(error, _NOT_OF_ONE_ROW) or not (isinstance(error, RowError) or error is answer):
                raise
            self._end(key, error)
        else:
            self._serve(key, effect)

    def _serve(self, key: Hashable, effect: Any) -> None:
        if isinstance(effect, Generate):
            self._writing.add(key)
            self._engine.submit(key, effect)
        elif isinstance(effect, Fork):
            count = len(effect.episodes)
            if not count:
                self._resume(key, [])
                return
            self._forks[key] = _Gathering([None] * count, count)
            for i, episode in enumerate(effect.episodes):
                child = (key, i)
                self._parents[child] = key, i
                self.start(child, episode)
        else:
            self._asked.append((key, effect))

    def _end(self, key: Hashable, result: Any) -> None:
        del self.live[key]
        self._engine.release(key)
        if key not in self._parents:
            self._ended.append((key, result))
            return
        parent, i = self._parents.pop(key)
        gathering = self._forks[parent]
        gathering.results[i] = result
        gathering.missing -= 1
        if not gathering.missing:
            self._resume(parent, self._forks.pop(parent).results)

    def _ask(self) -> None:
        """Hand all waiting effects to the handler in one batch, unless all its threads are busy."""
        if not self._asked or len(self._running) >= self._workers:
            return
        if self._calls is None:
            raise ToolrollError(f"nothing here answers {type(self._asked[0][1]).__name__}")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="calls")
        asked, self._asked = self._asked, []
        self._running[self._pool.submit(self._calls, [effect for _, effect in asked])] = [key for key, _ in asked]


def _results(future: Future[Sequence[Any]], count: int) -> Sequence[Any]:
    error = future.exception()
    if isinstance(error, Exception):
        return [error] * count
    results = future.result()
    if len(results) != count:
        raise ToolrollError(f"the handler answered {len(results)} of {count} calls")
    return results


class _AsTheyCome:
    def has_room(self) -> bool:
        return True

    def start(self, key: Hashable) -> None:
        pass

    def end(self, key: Hashable, result: Any) -> Iterator[tuple[Hashable, Any]]:
        yield key, result


class _InOrder:
    """Holds results back until all before them are there."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._keys: list[Hashable] = []  # in input order, from the first unfinished one on
        self._held: dict[Hashable, Any] = {}

    def has_room(self) -> bool:
        return len(self._keys) < self._window

    def start(self, key: Hashable) -> None:
        if key in self._held:
            raise ToolrollError("two episodes under way have this key", place=str(key))
        self._keys.append(key)

    def end(self, key: Hashable, result: Any) -> Iterator[tuple[Hashable, Any]]:
        self._held[key] = result
        while self._keys and self._keys[0] in self._held:
            first = self._keys.pop(0)
            yield first, self._held.pop(first)
