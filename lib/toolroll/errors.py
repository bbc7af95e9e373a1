"""What can go wrong, and the exit code each kind of failure has.

Every failure a user can meet is a `ToolrollError`; `toolroll.cli.ending` prints it as one
line, `command: place: why`, and ends with its exit code. Nothing here imports anything of ours.
"""

OK = 0  #: done; tolerated bad rows are counted on stderr and in the manifest
FAILED = 1  #: failed, or a bad row under `--on-error stop`, or more than `--max-errors`
USAGE = 2  #: the command line or a settings file is wrong
STOPPED = 75  #: stopped by a signal, can be resumed (EX_TEMPFAIL)
INTERRUPTED = 130  #: Ctrl-C
BROKEN_PIPE = 141  #: the reader of our output went away (128 + SIGPIPE)


class ToolrollError(Exception):
    """A failure with a place and a reason, told in one line.

    `place` is what the failure is about (a file, `file:line`, a URL, an option) and may be empty.
    """

    exit_code = FAILED

    def __init__(self, why: str, *, place: str = "") -> None:
        super().__init__(f"{place}: {why}" if place else why)
        self.why = why
        self.place = place


class UsageError(ToolrollError):
    """The command line, the environment or a settings file asks for something that cannot be."""

    exit_code = USAGE


class RowError(ToolrollError):
    """One record cannot be processed. Never a score: an error must not look like a zero."""


class Stopped(ToolrollError):
    """A signal asked us to stop; the work done so far is kept and `--resume` continues it."""

    exit_code = STOPPED


def first_line(error: BaseException) -> str:
    r"""What a library says of a failure, in one line: the first that is not blank, or else the kind of failure.

    >>> first_line(ValueError("\n  too long\nby far")), first_line(KeyError())
    ('too long', 'KeyError')
    """
    text = str(error)
    if "trust_remote_code=True" in text:  # transformers, of a model that is more than weights
        return "brings code of its own, which is not run without --trust-remote-code"
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
