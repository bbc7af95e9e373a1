"""The options of the bandit's commands: where the state is, and what a new one is set to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.errors import UsageError

if TYPE_CHECKING:
    from toolroll.curriculum.state import State
    from toolroll.run.log import Log

SECTION = "Making a state (--init)"
TAU = {"sec": 1.0}  #: where a policy's own default is not the paper's
ALPHA = {"adarft": 2.0}


@dataclass(frozen=True, slots=True)
class StateOptions:
    """Where the state is, and how writers keep out of each other's way."""

    state: str
    lock: str = "fcntl"

    def open(self, log: Log, **how: Any) -> State:
        """The state as it is now."""
        from toolroll.curriculum.state import State

        return State.open(Path(self.state), lock_kind=self.lock, notify=log.warn, **how)


def state_options(option: Callable[..., Any]) -> list[Any]:
    """The options of a command that has a state."""
    return [
        option(["--state"], metavar="DIR", required=True, type=click.Path(), help="The folder the state is in."),
        option(
            ["--lock"],
            type=click.Choice(["fcntl", "dir"]),
            default="fcntl",
            show_default=True,
            help="How writers keep out of each other's way: a file lock, or where a network file system has none, "
            "a folder, which a killed process leaves behind.",
        ),
    ]


@dataclass(frozen=True, slots=True)
class MakeOptions:
    """What a new state is set to; None is the default."""

    arm: tuple[str, ...]
    arms: str | None
    policy: str | None
    k: int | None
    tau: float | None
    c: float | None
    bonus: float | None
    count: str | None
    normalise: bool
    ignore_zero_groups: bool
    min_seen: int | None
    floor: float | None
    alpha: float | None
    beta: float | None
    eta: float | None
    target: float | None
    weight: tuple[str, ...]
    difficulty: str | None
    remember: int | None
    seed: int | None

    def make(self, state: StateOptions, *, by: str) -> None:
        """Make the state, or see that the one there is the same. Raises UsageError or ToolrollError."""
        import msgspec

        from toolroll.curriculum.bandit import Settings
        from toolroll.curriculum.pool import Pool
        from toolroll.curriculum.state import State

        policy = self.policy or "ucb"
        apart = ("arm", "arms", "weight", "difficulty")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        given = {name: value for name, value in given.items() if value is not None}
        given.setdefault("tau", TAU.get(policy, 0.1))
        given.setdefault("alpha", ALPHA.get(policy, 0.5))
        pool = Pool.read(self.arms, by=by, difficulty=self.difficulty) if self.arms is not None else None
        names = {*self.arm, *(pool.tasks if pool else ())}
        if "" in names:
            raise UsageError("an arm has no name", place="--arm")
        weights = parsed_weights(self.weight)
        if unknown := sorted(set(weights) - names):
            raise UsageError(f"no arm is named {unknown[0]!r}", place="--weight")
        difficulties = pool.difficulties() if pool and self.difficulty else {}
        if policy == "adarft" and set(difficulties) != names:
            raise UsageError("adarft needs the difficulty of every arm: --arms FILE --difficulty FIELD", place="--init")
        if policy == "fixed" and not any(weights.values()):
            raise UsageError("fixed needs weights: --weight ARM=W", place="--init")
        settings = msgspec.convert({**given, "weights": weights, "difficulties": difficulties}, Settings)
        State.make(Path(state.state), settings, names, lock_kind=state.lock)

    @staticmethod
    def refuse_given(context: click.Context) -> None:
        """Raise UsageError if any of them stands on the command line, where no state is made."""
        for field in fields(MakeOptions):
            source = context.get_parameter_source(field.name)
            if source is click.core.ParameterSource.COMMANDLINE:
                raise UsageError("goes with --init", place="--" + field.name.replace("_", "-"))


def parsed_weights(texts: tuple[str, ...]) -> Mapping[str, float]:
    """The weights of ARM=W texts.

    >>> parsed_weights(("easy=1", "a=b=0.5"))
    {'easy': 1.0, 'a=b': 0.5}
    """
    weights: dict[str, float] = {}
    for text in texts:
        arm, sign, value = text.rpartition("=")
        try:
            weights[arm] = float(value)
        except ValueError:
            sign = ""
        if not sign or not 0 <= weights[arm] < float("inf"):
            raise UsageError(f"want ARM=W with a weight of 0 or more, not {text!r}", place="--weight")
    return weights


def make_options(option: Callable[..., Any]) -> list[Any]:
    """The options of a new state."""
    positive = click.FloatRange(min=0)

    def one(name: str, kind: Any, text: str, **more: Any) -> Any:
        return option([name], type=kind, section=SECTION, help=text, **more)

    return [
        one("--arm", str, "Name of an arm; may be given again.", multiple=True, metavar="NAME"),
        one("--arms", click.Path(), "Take the arms from a pool, JSON lines, by the field --by.", metavar="FILE"),
        one(
            "--policy",
            click.Choice(["ucb", "sec", "adarft", "uniform", "fixed"]),
            "What decides how often an arm is drawn. ucb: DUMP; sec: a running value of each arm; adarft: the tasks "
            "whose difficulty is nearest to a target that follows the mean reward; fixed: --weight. [default: ucb]",
        ),
        one("--k", click.IntRange(min=1), "Absolute advantages in an arm's window. [default: 300]", metavar="N"),
        one(
            "--tau",
            positive,
            "Temperature of the softmax; 0 always takes the best arm, the first by name of equals. "
            "[default: 0.1; sec: 1]",
        ),
        one("--c", positive, "Exploration constant, inside the root: sqrt(c ln(n+1) / (n_j+1)). [default: 2]"),
        one("--bonus", positive, "Weight of the root of --c; 0 leaves the mean absolute advantage alone. [default: 1]"),
        one(
            "--count",
            click.Choice(["rollouts", "prompts", "window"]),
            "What n_j counts: advantages; prompts; or advantages in the window, so that an arm left alone is not "
            "forgotten. [default: rollouts]",
        ),
        one("--normalise", bool, "Divide mean absolute advantages by the largest of them.", is_flag=True),
        one("--ignore-zero-groups", bool, "Leave out rows whose advantages are all 0.", is_flag=True),
        one(
            "--min-seen",
            click.IntRange(min=0),
            "As long as arms were seen fewer than N times, draw only those, evenly. [default: 0]",
            metavar="N",
        ),
        one("--floor", click.FloatRange(0, 1), "Share of the draws that is spread evenly over all arms. [default: 0]"),
        one("--alpha", positive, "SEC's step, or AdaRFT's sensitivity. [default: 0.5; adarft: 2]"),
        one("--beta", float, "AdaRFT's mean reward to aim at. [default: 0.5]"),
        one("--eta", positive, "AdaRFT's largest change of the target. [default: 50]"),
        one("--target", click.FloatRange(0, 100), "AdaRFT's first target difficulty. [default: 0]"),
        one(
            "--weight",
            str,
            "Weight of an arm under --policy fixed; 0 where none is given.",
            multiple=True,
            metavar="ARM=W",
        ),
        one("--difficulty", str, "Field of the pool's rows with their difficulty, 0 to 100 (adarft).", metavar="FIELD"),
        one("--remember", click.IntRange(min=1), "Names of feedback rows to remember. [default: 100000]", metavar="N"),
        one("--seed", click.IntRange(min=0), "Seed of all draws. [default: 1]", metavar="N"),
    ]


def new_arms_option(option: Callable[..., Any]) -> Any:
    """--new-arms."""
    return option(
        ["--new-arms"],
        type=click.Choice(["add", "refuse", "skip"]),
        default="refuse",
        show_default=True,
        help="Feedback about an unknown arm: take the arm in; a bad row; leave the row out.",
    )


def freeze_option(option: Callable[..., Any]) -> Any:
    """--freeze."""
    return option(["--freeze"], multiple=True, metavar="ARM", help="Do not draw this arm for now; may be given again.")
