"""How the process of a command ends: its exit code, the one line that says why, its standard streams."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

import click

from toolroll.errors import FAILED, INTERRUPTED, OK, STOPPED, USAGE, Stopped, ToolrollError
from toolroll.run.contract import OutputClosed
from toolroll.run.log import DEBUG, Log

_OF_MEMORY = (
    *("can't allocate memory", "Storage size calculation overflowed", "integer multiplication overflow"),  # torch
    *("array is too big", "Maximum allowed dimension exceeded"),  # numpy
)


def exit_code(name: str, log: Log, work: Callable[[], None]) -> int:
    """Do the `work` of the command `name` and tell what stops it; a broken pipe ends the process by SIGPIPE."""
    try:
        work()
    except (click.exceptions.Exit, click.exceptions.Abort) as error:
        return int(getattr(error, "exit_code", INTERRUPTED))
    except click.ClickException as error:
        log.error(f"{_usage_why(error)} (see {name} --help)")
        return USAGE
    except ToolrollError as error:
        _trace(log)
        log.close()
        if isinstance(error, Stopped):
            log.warn(error.why)
            return STOPPED
        log.error(error.why, error.place)
        return error.exit_code
    except (OutputClosed, BrokenPipeError):
        _die_of_sigpipe()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        _trace(log)
        log.error(error.strerror or str(error), str(error.filename or ""))
        _drop_stdout()  # what it could not take, it cannot take at exit either
        return FAILED
    except Exception as error:  # the last resort: a defect is told in one line too
        _trace(log)
        why = f"internal error: {type(error).__name__}: {error} (run with -v -v for the traceback)"
        log.error("out of memory" if _is_of_memory(error) else why)
        return FAILED
    return FAILED if log.failed else OK


def _is_of_memory(error: Exception) -> bool:
    """Whether more memory was asked for than there is, or than there can be. numpy and torch say it in many ways."""
    told = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return told or any(part in str(error) for part in _OF_MEMORY)


def _trace(log: Log) -> None:
    if log.level >= DEBUG:
        import traceback

        log.debug(traceback.format_exc())


def hold_standard_streams() -> None:
    """Where stdin, stdout or stderr is closed, make its number fail to use, so that no file opened later gets it."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _die_of_sigpipe() -> NoReturn:
    """End as a Unix filter does when its reader went away: quietly, by SIGPIPE (the shell sees 141)."""
    _drop_stdout()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    raise SystemExit(128 + signal.SIGPIPE)


def _usage_why(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    return text[:1].lower() + text[1:].rstrip(".") if text[1:2].islower() else text.rstrip(".")
