"""One answer to one prompt: what a row asks, as the model is to read it, and what the model writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from toolroll.errors import RowError, ToolrollError
from toolroll.io.rows import Row
from toolroll.models.base import Codec, Completion, Generate, Message, Sampling
from toolroll.models.rollouts import Transcript

_MARK = re.compile(r"\{\{|\}\}|\{(\w+)\}")
FINISH = {"stop": "stop", "eos": "eos", "length": "token_limit"}  #: how records call the end of a completion


def read_template(path: Path) -> str:
    """The text of a prompt file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error
    except UnicodeDecodeError as error:
        raise ToolrollError("not UTF-8", place=str(path)) from error


def fill(template: str, fields: dict[str, Any]) -> str:
    """`template` with the field of each `{name}` in its place; `{{` and `}}` stand for braces.

    What is no string stands there as JSON. Other braces are left alone. RowError where a field is missing or null.

    >>> fill('{who} is {age}. Answer as {{"x": 1}} or { }.', {"who": "{age}", "age": 7})
    '{age} is 7. Answer as {"x": 1} or { }.'
    """

    def value(mark: re.Match[str]) -> str:
        name = mark[1]
        if name is None:
            return mark[0][0]
        if fields.get(name) is None:
            raise RowError(f"the prompt file names {{{name}}}, which this row does not have")
        found = fields[name]
        return found if isinstance(found, str) else orjson.dumps(found).decode()

    return _MARK.sub(value, template)


@dataclass(frozen=True, slots=True)
class Prompter:
    """How a row becomes a prompt.

    A `template` is filled with the row's fields; without one the row's `messages` are the prompt, else its `prompt`.
    `chat` makes the text of messages; `raw` leaves the text as it is. `system` goes before messages without one.
    """

    chat: Callable[[list[Message]], str]
    template: str | None = None
    system: str | None = None
    raw: bool = False

    def __call__(self, row: Row[Any]) -> str:
        """The prompt of a row, as text. RowError where there is none."""
        if not self.raw:
            return self.chat(self.messages(row))
        asked = self._asked(row)
        if not isinstance(asked, str):
            raise RowError("messages need the chat template: --raw-prompt takes text")
        return asked

    def messages(self, row: Row[Any]) -> list[Message]:
        """The prompt of a row, as a conversation. RowError where there is none."""
        asked = self._asked(row)
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        return messages

    def _asked(self, row: Row[Any]) -> str | list[Message]:
        asked = self._given(row)
        if not asked or (isinstance(asked, str) and not asked.strip()):
            raise RowError("the prompt is empty")
        return asked

    def _given(self, row: Row[Any]) -> str | list[Message]:
        if self.template is not None:
            return fill(self.template, row.fields())
        given = row.view.messages if row.view.messages is not None else row.view.prompt
        if given is None:
            raise RowError("no `prompt` and no `messages` (and no --prompt-file)")
        return given if isinstance(given, str) else [{"role": part.role, "content": part.content} for part in given]


class Answer:
    """One sample: the prompt, the text the answer begins with, what the model adds.

    `prefill` is part of the response, not written by the model. `context` is the longest sequence in tokens.
    """

    def __init__(
        self, codec: Codec | None, sampling: Sampling, *, prefill: str = "", context: int | None = None
    ) -> None:
        self.transcript = Transcript()
        self.finish = "error"
        self.prompt = ""
        self.prompt_ids: Sequence[int] | None = None
        self._codec = codec
        self._sampling = sampling
        self._prefill = prefill
        self._context = context

    def episode(self, prompt: str) -> Generator[Generate, Completion, dict[str, Any]]:
        """Let the model continue `prompt` and the prefill; the result is the sample's own fields of a row."""
        self.prompt, self.prompt_ids = prompt, self._encode(prompt)
        begun = self._encode(self._prefill)
        self.transcript.inject(self._prefill, begun)
        given = None if self.prompt_ids is None or begun is None else (*self.prompt_ids, *begun)
        if given is not None and self._context is not None and len(given) >= self._context:
            raise RowError(f"the prompt has {len(given)} tokens; the longest sequence has {self._context}")
        completion = yield Generate(prompt + self._prefill, given, self._sampling)
        self.transcript.write(completion)
        self.finish = FINISH[completion.finish]
        return self.fields()

    def fields(self) -> dict[str, Any]:
        """The sample so far, as fields of a row."""
        return {
            "prompt": self.prompt,
            "response": self.transcript.text,
            "finish": self.finish,
            **self.transcript.fields(self.prompt_ids),
        }

    def _encode(self, text: str) -> tuple[int, ...] | None:
        return None if self._codec is None else self._codec.encode(text)
