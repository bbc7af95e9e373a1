"""Holding a model to the step form of HiPRAG while it writes, token by token.

The form is a small automaton over bytes (arXiv:2510.07794, section 3.1), whose text is, after a prompt that
ends with the first `<reasoning>`:

    r</reasoning>
        <search>q</search>                                    the turn ends; the caller injects context and <conclusion>
    r</reasoning>
        <conclusion>o</conclusion>
    </step>                                                   then `<step>` with a `<reasoning>`, or
    </think>
    <answer>a</answer>                                        the end

The fields r, q, o and a are any text without `<` that is not only white space; the white space between tags is
fixed. A token is permitted when the automaton survives all its bytes, so tokens may span tags and fields.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from toolroll.errors import ToolrollError

FIELDS = ("reasoning", "search", "conclusion", "answer")
_DEAD = 0
_SPACES = [chr(code).encode() for code in range(0xD800) if chr(code).isspace()]


class SpellingCodec(Protocol):
    """A codec that knows the bytes of its tokens (`toolroll.models.codec.HFCodec`)."""

    eos_ids: frozenset[int]

    def pieces(self) -> list[bytes | None]:
        """The bytes of each token id; None for tokens that add no text."""


class Grammar:
    """The automaton and, for one vocabulary, the tokens it permits in each of its states.

    The permitted tokens of a state are computed when the state is first met and kept: a state costs milliseconds once,
    microseconds from then on. Raises ToolrollError when the vocabulary cannot spell the tags byte by byte.
    """

    def __init__(self, codec: SpellingCodec) -> None:
        pieces = codec.pieces()
        self.eos_ids = sorted(codec.eos_ids)
        self.pieces = pieces
        self._order, self._bytes, self._lengths = _columns(pieces)
        self._machines = {(s, n): _Machine(search=s, step=n) for s in (False, True) for n in (False, True)}
        self._masks: dict[tuple[bool, bool, int, bool], tuple[Tensor, int]] = {}
        spelled = {piece for piece in pieces if piece is not None and len(piece) == 1}
        if missing := [chr(b) for b in self.machine(search=True, step=True).spelling if bytes((b,)) not in spelled]:
            raise ToolrollError(f"no token of the model spells {missing[0]!r}: its output cannot be constrained")

    def start(self, *, searches: int, max_steps: int | None = None, field_tokens: int | None = None) -> Constraint:
        """The constraint of one sequence that stands after the first `<reasoning>`.

        `searches` >= 0 may be made; with 0 left there is no `<search>`. After `max_steps` >= 1 steps the answer must
        follow. After `field_tokens` >= 1 tokens in a field only its closing tag is permitted.
        """
        return Constraint(self, searches, max_steps, field_tokens)

    def machine(self, *, search: bool, step: bool) -> _Machine:
        """The automaton in which `<search>` and a further `<step>` are permitted or not."""
        return self._machines[search, step]

    def permitted(self, machine: _Machine, state: int, *, closing: bool) -> tuple[Tensor, int]:
        """The tokens [V] that may follow in `state`, and how many they are.

        `closing`: only those on the way to the closing tag of the field (or, while it has nothing but white space,
        those that end this).
        """
        key = (machine.search, machine.step, state, closing)
        if key not in self._masks:
            ends = self._walk(machine.closing if closing and state in machine.filled else machine.table, state)
            good = ends != _DEAD
            if closing and state in machine.blank:
                good &= ~np.isin(ends, list(machine.blank))
            mask = torch.zeros(len(self.pieces), dtype=torch.bool)
            mask[torch.from_numpy(self._order[good])] = True
            if state in (machine.end, machine.turn_end):
                mask[self.eos_ids] = True
            self._masks[key] = mask, int(mask.sum())
        return self._masks[key]

    def _walk(self, table: np.ndarray, state: int) -> np.ndarray:
        """The state each token leads to from `state`, all tokens at once, a byte a step."""
        states = np.full(len(self._order), state, dtype=table.dtype)
        live = np.arange(len(states))
        for column in range(self._bytes.shape[1]):
            live = live[self._lengths[live] > column]
            states[live] = table[states[live], self._bytes[live, column]]
            live = live[states[live] != _DEAD]
        return states


class Constraint:
    """Where one sequence stands in the grammar. `forced` counts tokens that were the only one permitted."""

    def __init__(self, grammar: Grammar, searches: int, max_steps: int | None, field_tokens: int | None) -> None:
        self.forced = 0
        self.searches_left = searches
        self.steps = 1
        self._grammar = grammar
        self._max_steps = max_steps
        self._field_tokens = field_tokens
        self._in_field = 0
        self._state = self._machine.opened["reasoning"]

    @property
    def finished(self) -> bool:
        """Whether the answer is closed."""
        return self._state == self._machine.end

    def allowed(self) -> Tensor:  # [V] bool
        """The tokens that may come next: those that end the text after a search or the answer. Not to be written to."""
        return self._permitted()[0]

    def advance(self, token: int) -> None:
        """Move on by a token that `allowed` permits (the end-of-sequence token stays where it is)."""
        self.forced += self._permitted()[1] == 1
        piece = self._grammar.pieces[token] if token < len(self._grammar.pieces) else None
        if piece is None:
            return
        before = self._machine.field_of.get(self._state)
        self._move(piece)
        after = self._machine.field_of.get(self._state)
        self._in_field = 0 if after is None else self._in_field + 1 if after == before else 1

    def inject(self, text: str) -> None:
        """Text that is not the model's. One that ends with an opening tag leaves the sequence inside that field.

        Any other is read like the model's own; where the form has no place for it, the sequence stays where it is.
        """
        for field in FIELDS:
            if text.endswith(f"<{field}>"):
                self._state, self._in_field = self._machine.opened[field], 0
                return
        self._move(text.encode())

    def _permitted(self) -> tuple[Tensor, int]:
        closing = self._field_tokens is not None and self._in_field >= self._field_tokens
        return self._grammar.permitted(self._machine, self._state, closing=closing)

    @property
    def _machine(self) -> _Machine:
        step = self._max_steps is None or self.steps < self._max_steps
        return self._grammar.machine(search=self.searches_left > 0, step=step)

    def _move(self, text: bytes) -> None:
        machine, state = self._machine, self._state
        searched = stepped = 0
        for byte in text:
            state = int(machine.table[state, byte])
            if state == _DEAD:
                return
            searched += state == machine.turn_end
            stepped += state == machine.new_step
        self._state = state
        self.searches_left -= searched
        self.steps += stepped


class _Machine:
    """The automaton: `table` [states, 256] gives the next state, 0 is dead. All variants number their states alike.

    `opened`: the state after each opening tag. `field_of`: the field of every state inside a field. `blank`, `filled`:
    those in which the field has white space only, or more. `closing`: the table in which a filled field only closes.
    """

    def __init__(self, *, search: bool, step: bool) -> None:
        self.search, self.step = search, step
        self._rows: list[np.ndarray] = []
        self._new()  # dead
        self.opened: dict[str, int] = {}
        self.field_of: dict[int, str] = {}
        self.blank: set[int] = set()
        self.filled: set[int] = set()
        self.spelling: set[int] = set()
        close = {field: self._field(field) for field in FIELDS}
        reasoned, self.turn_end, concluded, self.end = (
            self._text(close[field], f"/{field}>") for field in ("reasoning", "search", "conclusion", "answer")
        )
        choice = self._text(reasoned, "\n    <")
        stepped = self._text(concluded, "\n</step>\n<")
        self._link(choice, "conclusion>", self.opened["conclusion"])
        self._link(choice, "search>", self.opened["search"], closed=not search)
        self._link(stepped, "/think>\n<answer>", self.opened["answer"])
        self.new_step = self._link(stepped, "step>\n    <reasoning>", self.opened["reasoning"], closed=not step)
        self.table = np.stack(self._rows)
        self.closing = self.table.copy()
        for state in self.filled:
            self.closing[state, :] = _DEAD
            self.closing[state, ord("<")] = self.table[state, ord("<")]

    def _new(self) -> int:
        self._rows.append(np.zeros(256, dtype=np.int32))
        return len(self._rows) - 1

    def _field(self, name: str) -> int:
        """The states of a free field; returns the state after the `<` of its closing tag."""
        blank, filled, close = self._new(), self._new(), self._new()
        self.opened[name] = blank
        states = {b"": blank}  # a trie over the encodings of white space: only they leave a blank field blank
        for prefix in sorted({space[:cut] for space in _SPACES for cut in range(1, len(space))}):
            states[prefix] = self._new()
        for prefix, state in states.items():
            self._rows[state][:] = filled
            for space in _SPACES:
                if space.startswith(prefix):
                    follows = space[: len(prefix) + 1]
                    self._rows[state][follows[-1]] = blank if follows == space else states[follows]
            self._rows[state][ord("<")] = _DEAD
        self._rows[filled][:] = filled
        self._rows[filled][ord("<")] = close
        self.spelling |= {ord("<"), ord("x")}
        self.blank |= set(states.values())
        self.filled.add(filled)
        self.field_of |= dict.fromkeys((*states.values(), filled), name)
        return close

    def _text(self, state: int, text: str) -> int:
        """The state after the fixed `text` from `state` on."""
        for byte in text.encode():
            self.spelling.add(byte)
            if not self._rows[state][byte]:
                self._rows[state][byte] = self._new()
            state = int(self._rows[state][byte])
        return state

    def _link(self, state: int, text: str, target: int, *, closed: bool = False) -> int:
        """Let the fixed `text` lead from `state` to `target`; the way is there but shut when `closed`.

        Returns the first state that belongs to this way alone.
        """
        first = self._text(state, text[0])
        last = self._text(first, text[1:-1])
        self._rows[last][ord(text[-1])] = target
        self.spelling |= {*text.encode()}
        if closed:
            self._rows[state][ord(text[0])] = _DEAD
        return first


def _columns(pieces: list[bytes | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens with text: their ids [n], bytes [n, longest] and lengths [n]."""
    order = [i for i, piece in enumerate(pieces) if piece]
    lengths = np.array([len(pieces[i] or b"") for i in order])
    table = np.zeros((len(order), int(lengths.max(initial=0))), dtype=np.uint8)
    for row, i in zip(table, order, strict=True):
        piece = pieces[i] or b""
        row[: len(piece)] = np.frombuffer(piece, dtype=np.uint8)
    return np.array(order, dtype=np.int64), table, lengths
