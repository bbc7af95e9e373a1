"""What a text model offers, whichever back end runs it.

A method that talks to a model in several turns is written as an *episode*: a generator that yields
`Generate` and is sent a `Completion`. `drive` in `toolroll.models.episodes` runs many episodes at
once on one `TextEngine`; sequences enter and leave the batch as they finish, and what an engine has
read of a sequence it never reads again.

An engine that knows token ids works in ids, and nothing is tokenized twice: sampled ids and their
log-probs are kept exactly as sampled. An engine that does not (some servers) works in text; its
completions have `ids=None`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from toolroll.models.constraint import Constraint

Finish = Literal["stop", "length", "eos"]
Message = dict[str, str]  #: {"role": "system|user|assistant", "content": "..."}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    temperature 0 is greedy. top_p in (0, 1]; top_k >= 0, 0 = off. `max_tokens` > 0 counts the new
    tokens of one completion. `stop`: a completion ends with the token that completes one of these
    strings; that token is kept. `seed` determines every draw of the completion.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 500
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for a completion of everything this sequence has seen so far plus what is appended here.

    Give `ids` to an engine that works in ids, `text` to one that works in text; both may be given.
    The engine remembers earlier appends and its own completions of the same sequence.
    """

    text: str
    ids: tuple[int, ...] | None
    sampling: Sampling
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote.

    `ids` [T] as sampled (the end-of-sequence token included when `finish` is "eos"), `logprobs` [T]
    in nats: log softmax(logits / temperature) at the sampled token (temperature 1 when greedy),
    before top-p, top-k and constraint cut anything away. None where the back end does not say, or says
    something else.
    `text` is the decoded text without special end tokens. `stop` names the stop string that ended it. `prompt` and
    `prompt_ids`, images' tokens among them, are what the model read, where it was asked in messages with images
    (`toolroll.models.pictures`) and its processor runs here.
    """

    text: str
    ids: tuple[int, ...] | None
    logprobs: tuple[float, ...] | None
    finish: Finish
    stop: str | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None


class Codec(Protocol):
    """Text to token ids and back, and the chat template of a model."""

    eos_ids: frozenset[int]

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`, no special tokens added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""

    def chat(self, messages: Sequence[Message]) -> str:
        """The prompt text for `messages`, ending where the assistant's turn begins."""


class TextEngine(Protocol):
    """A text model that works on several sequences at a time."""

    name: str  #: back end and model, for records: "hf:SmolLM2-135M-Instruct"
    capacity: int  #: how many sequences may be under way at once
    max_context: int | None  #: longest sequence in tokens, None when unknown

    @property
    def codec(self) -> Codec | None:
        """The model's codec; None when the back end works in text only."""

    def submit(self, key: Hashable, request: Generate) -> None:
        """Append to sequence `key` (new or known) and start a completion of it."""

    def poll(self) -> list[tuple[Hashable, Completion | Exception]]:
        """Work a little, return what finished; an exception belongs to its sequence only."""

    def release(self, key: Hashable) -> None:
        """Forget sequence `key` and free what it holds."""

    def chat(self, requests: Iterable[tuple[Sequence[Message], Sampling]]) -> list[Completion | Exception]:
        """Answer independent conversations, in order."""

    def close(self) -> None:
        """Free the model."""


class Named(Protocol):
    """Whatever writes answers: a `TextEngine`, an `ImageTextEngine`."""

    @property
    def name(self) -> str:
        """Back end and model."""


def engine_identity(engine: Named) -> str:
    """Back end, model and, where the engine knows them, weights."""
    weights = getattr(engine, "weights_id", None)
    return f"{engine.name}@{weights}" if weights else engine.name


@dataclass(slots=True)
class Usage:
    """Tokens an engine has read and written; `reused` were in its cache already."""

    prefilled: int = 0
    reused: int = 0
    generated: int = 0
    notes: list[str] = field(default_factory=list)
