"""Programs on lists of digits, problems that ask for one, and a small transformer that writes sets of them.

A program is up to five tokens and END: operations, some followed by a digit, applied one after the other. Other
sequences of tokens are no program. A program is undefined where one of its operations is: the first of an empty list,
more digits than there are. A problem is two observations of a hidden program; several programs may agree with both.

Everything stands in fixed places: observations padded with BLANK, then SET programs of SLOT tokens each, the later ones
written in view of those before. B is sequences, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import torch
from sorting import Learner
from torch import Tensor, nn

from toolroll.train.losses import token_logprobs

Digits: TypeAlias = tuple[int, ...]
Tokens: TypeAlias = tuple[int, ...]

SHORT, LONG = 3, 6  #: digits of an observed input, of any output, at most
OBSERVED, SET, SLOT = 2, 3, 6  #: observations of a problem, programs of a set, tokens of a program with END
PROMPT = OBSERVED * (SHORT + LONG + 2)


class Operation(NamedTuple):
    """What it does, None where it is undefined; with the arguments it takes, nothing for none."""

    do: Callable[[Digits, int], Digits | None]
    arguments: Sequence[int] = ()


def running_sums(x: Digits) -> Digits:
    """The sums of the first 1, 2, ... digits, modulo 10."""
    return tuple(sum(x[: i + 1]) % 10 for i in range(len(x)))


OPERATIONS = {
    "add": Operation(lambda x, k: tuple((v + k) % 10 for v in x), range(1, 10)),
    "times": Operation(lambda x, k: tuple(v * k % 10 for v in x), range(2, 10)),
    "take": Operation(lambda x, k: x[:k] if len(x) >= k else None, range(1, 4)),
    "reverse": Operation(lambda x, _: x[::-1]),
    "sort": Operation(lambda x, _: tuple(sorted(x))),
    "rest": Operation(lambda x, _: x[1:] or None),
    "front": Operation(lambda x, _: x[:-1] or None),
    "evens": Operation(lambda x, _: tuple(v for v in x if v % 2 == 0)),
    "stutter": Operation(lambda x, _: (x[0], *x) if x else None),
    "unique": Operation(lambda x, _: tuple(dict.fromkeys(x))),
    "sums": Operation(lambda x, _: running_sums(x)),
    "largest": Operation(lambda x, _: (max(x),) if x else None),
}
NAMES = tuple(OPERATIONS)
END = 10 + len(NAMES)  #: tokens 0 to 9 are digits, the operations follow
WRITTEN = END + 1  #: the tokens of a program
ARROW, STOP, BLANK = range(WRITTEN, WRITTEN + 3)


class Problem(NamedTuple):
    """Inputs and outputs that a program is to agree with, and the one they are of."""

    observations: tuple[tuple[Digits, Digits], ...]
    hidden: Tokens


@cache
def parsed(tokens: Tokens) -> tuple[tuple[str, int], ...] | None:
    """The operations of a program with their arguments, 0 for none; None for what is no program.

    >>> parsed((10, 4, 13, END)), parsed((10, END)), parsed((13, 13))
    ((('add', 4), ('reverse', 0)), None, None)
    """
    if not tokens or tokens[-1] != END or len(tokens) == 1:
        return None
    steps, rest = [], list(tokens[:-1])
    while rest:
        token = rest.pop(0)
        if token < 10:
            return None
        name, argument = NAMES[token - 10], 0
        if OPERATIONS[name].arguments:
            if not rest or rest[0] not in OPERATIONS[name].arguments:
                return None
            argument = rest.pop(0)
        steps.append((name, argument))
    return tuple(steps)


def output(program: tuple[tuple[str, int], ...], digits: Digits) -> Digits | None:
    """What a program makes of some digits; None where it is undefined.

    >>> output((("add", 4), ("reverse", 0)), (1, 9))
    (3, 5)
    """
    made: Digits | None = digits
    for name, argument in program:
        if made is None:
            return None
        made = OPERATIONS[name].do(made, argument)
    return made


def drawn_program(rng: random.Random) -> Tokens:
    """One or two operations and END."""
    tokens: list[int] = []
    for place in rng.sample(range(len(NAMES)), rng.choice((1, 2))):
        arguments = OPERATIONS[NAMES[place]].arguments
        tokens += [10 + place, *([rng.choice(arguments)] if arguments else [])]
    return (*tokens, END)


def problems(rng: random.Random, *, held_out: bool) -> Iterator[Problem]:
    """Problems without end, all held out or none: those whose inputs' digits add up to 0 modulo 5 are."""
    while True:
        hidden = drawn_program(rng)
        inputs = [tuple(rng.choices(range(10), k=rng.choice((2, SHORT)))) for _ in range(OBSERVED)]
        if (sum(map(sum, inputs)) % 5 == 0) != held_out or inputs[0] == inputs[1]:
            continue
        program = parsed(hidden)
        assert program is not None
        outputs = [output(program, given) for given in inputs]
        if all(outputs) and all(len(made) <= LONG for made in outputs if made):
            yield Problem(tuple(zip(inputs, outputs, strict=True)), hidden)  # type: ignore[arg-type]


@cache
def sample_space(size: int) -> tuple[Digits, ...]:
    """Inputs that no problem shows: the empty list, single digits, and lists longer than those observed."""
    rng = random.Random(2025)
    space: dict[Digits, None] = {(): None} | {(digit,): None for digit in range(10)}
    while len(space) < size:
        space[tuple(rng.choices(range(10), k=rng.choice((4, 5, 6))))] = None
    return tuple(space)


def padded(tokens: Sequence[int], length: int) -> list[int]:
    """The tokens and as many BLANK as are wanting."""
    return [*tokens, *[BLANK] * (length - len(tokens))]


def prompt(problem: Problem) -> list[int]:
    """The observations, PROMPT tokens."""
    shown: list[int] = []
    for given, made in problem.observations:
        shown += [*padded(given, SHORT), ARROW, *padded(made, LONG), STOP]
    return shown


def sequence(problem: Problem, programs: Sequence[Tokens]) -> list[int]:
    """The observations and up to SET programs, always as long."""
    slots = [token for program in programs for token in padded(program, SLOT)]
    return [*prompt(problem), *padded(slots, SET * SLOT)]


class Writer(Learner):
    """The transformer of sorting.py, with these tokens and places."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__(SLOT, width, layers, heads)
        self.tokens = nn.Embedding(BLANK + 1, width)
        self.places = nn.Embedding(PROMPT + SET * SLOT, width)
        self.head = nn.Linear(width, WRITTEN)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def logprobs(self, ids: Tensor) -> Tensor:
        """Log-probabilities of the tokens of each program, 0 for padding: [B, T] -> [B, SET, SLOT]."""
        written = ids[:, PROMPT:]
        logits = self(ids[:, :-1])[0][:, PROMPT - 1 :]
        real = written != BLANK
        found = token_logprobs(logits, written.where(real, 0)).where(real, 0.0)
        return found.view(len(ids), SET, SLOT)

    @torch.no_grad()
    def sampled(self, tasks: Sequence[Problem], times: int, generator: torch.Generator) -> list[list[list[Tokens]]]:
        """`times` sets for each problem, at temperature 1: problems, times, SET programs."""
        ids = torch.full((len(tasks) * times, SET * SLOT), BLANK)
        logits, pasts = self(torch.tensor([prompt(task) for task in tasks]))
        logits, pasts = logits.repeat_interleave(times, 0), [past.repeat_interleave(times, 1) for past in pasts]
        ended = torch.zeros(len(ids), dtype=torch.bool)
        for place in range(SET * SLOT):
            if place:
                logits, pasts = self(ids[:, place - 1 : place], pasts)
            if place % SLOT == 0:
                ended.zero_()
            chosen = logits[:, -1].softmax(-1).multinomial(1, generator=generator)[:, 0]
            ids[:, place] = chosen.where(~ended, BLANK)
            ended |= chosen == END
        slots = ids.view(len(tasks), times, SET, SLOT).tolist()
        return [[[tuple(t for t in slot if t != BLANK) for slot in one] for one in sets] for sets in slots]
