"""Several executors at work at once, one in each of a few threads: the programs run in processes of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from toolroll.abduction.execution import Executor

__all__ = ["Pool"]

T = TypeVar("T")


class Pool:
    """Runs jobs, each with an executor to itself. Which of them gets which is nobody's concern.

    open_one: makes an executor; called by a thread when it gets its first job, so that a run without jobs opens none.
    Threads end with the process; `close` ends the executors.
    """

    def __init__(self, open_one: Callable[[], Executor], workers: int) -> None:
        self.workers = workers
        self._open_one = open_one
        self._jobs: SimpleQueue[tuple[Callable[[Executor], Any], Future[Any]]] = SimpleQueue()
        self._opening = threading.Lock()
        self._executors: list[Executor] = []
        self._threads = 0
        self._closed = False

    def submit(self, job: Callable[[Executor], T]) -> Future[T]:
        """Have a job done; the future has its result, or raises what it raised."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        if self._threads < self.workers:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"sandbox {self._threads}").start()
        return future

    def close(self) -> None:
        """End all executors; jobs that are left are not done."""
        self._closed = True
        for _ in range(self._threads):
            self._jobs.put((_no_job, Future()))
        with self._opening:
            for executor in self._executors:
                executor.close()
            self._executors.clear()

    def _work(self) -> None:
        executor: Executor | None = None
        while True:
            job, future = self._jobs.get()
            if self._closed:
                return
            try:
                if executor is None:
                    executor = self._opened()
                future.set_result(job(executor))
            except BaseException as error:  # the thread that waits for the result deals with it
                future.set_exception(error)

    def _opened(self) -> Executor:
        with self._opening:
            if self._closed:
                raise RuntimeError("closed")
            executor = self._open_one()
            self._executors.append(executor)
            return executor


def _no_job(_: Executor) -> None:
    return None
