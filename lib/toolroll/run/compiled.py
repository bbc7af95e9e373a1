"""Functions that numba compiles, once for a machine: the result is kept beside the source, or in the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A function of numbers and arrays as machine code.

    It lets other threads run meanwhile. Sums keep their order and nothing is fused (no fastmath), so its results are
    those of the Python it was; division by zero gives infinity.
    """
    settings = {"nogil": True, "error_model": "numpy"}
    try:
        machine_code: F = njit(cache=True, **settings)(function)
    except RuntimeError:  # no place that may be written for a cache: compile once a process
        machine_code = njit(**settings)(function)
    return machine_code
