"""What a model is asked when hypotheses are elicited from it one after the other, as messages.

The first message states the form of a reply and the observations; after each reply comes a message that asks for
another one. The styles of that message:

    full         how many there are so far, the observations again, and the demand for another principle
    short        that demand, without the observations
    super-short  one word; the first message says that one hypothesis after the other will be asked for
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolroll.abduction.problems import Pair
from toolroll.models.answers import fill
from toolroll.models.base import Message

__all__ = ["STYLES", "Prompts", "as_text", "conversation", "shown", "spelled"]

Style = Literal["full", "short", "super-short"]
STYLES: tuple[Style, ...] = ("full", "short", "super-short")

FIRST = """\
An unknown function was observed. These are its observations, each as (input, output):

{observations}

State one hypothesis about how the function makes its output, as a rule and as a program that follows the rule. Your \
whole reply is a Python tuple of two strings:

("the rule, in one sentence", "the source of a Python function")

About the source:
- It defines one function at the top level, and nothing else there. Helpers are defined inside of it.
- The function takes one argument, the input, and returns the output. It prints nothing.
- It uses built-ins only and imports nothing.
- It gives the right output for every observation, by the rule: it does not compare its input with the observed ones.
- It should have an output for other inputs of this kind, too.
"""
MANY = "\nI shall ask for one hypothesis after another. Base each on another principle than all before it.\n"
AGAIN = {
    "full": """\
You have given {count} so far. The observations once more:

{observations}

Now state a further hypothesis. Its principle has to be a different one at heart, not a variation of an earlier one, \
and it has to fit every observation. The form of the reply stays the same.
""",
    "short": """\
Now state a further hypothesis, in the same form. It has to rest on a principle unlike those of the earlier ones and \
still fit every observation.
""",
    "super-short": "Next.\n",
}


def shown(observations: Sequence[Pair]) -> str:
    """Observations as a prompt has them: a line each, values as Python writes them.

    >>> print(shown([(b'[1,2]', b'[2]'), (b'["a",null]', b'true')]))
    Pair 0: ([1, 2], [2])
    Pair 1: (['a', None], True)
    """
    return "\n".join(
        f"Pair {number}: ({json.loads(given)!r}, {json.loads(output)!r})"
        for number, (given, output) in enumerate(observations)
    )


def as_text(messages: Sequence[Message]) -> str:
    r"""Messages as plain text, for a model without a chat template: their contents, and empty lines.

    >>> as_text([{"role": "user", "content": "one?"}, {"role": "assistant", "content": "yes"}])
    'one?\n\nyes\n\n'
    """
    return "".join(message["content"].strip("\n") + "\n\n" for message in messages)


def spelled(text: str, code: str | None) -> str:
    r"""A reply in the form that is asked for.

    >>> spelled("adds one", "def f(x):\n    return x + 1")
    "('adds one', 'def f(x):\\n    return x + 1')"
    """
    return repr((text, code)) if code is not None else text


@dataclass(frozen=True, slots=True)
class Prompts:
    """The words of a conversation.

    template: the first message instead of toolroll's; {observations} in it, and other fields of the row, are filled in.
    system: a message before it.
    """

    style: Style = "full"
    template: str | None = None
    system: str | None = None

    def first(self, observations: Sequence[Pair], fields: dict[str, Any]) -> list[Message]:
        """The messages that ask for the first hypothesis. RowError where the template names a field that is missing."""
        seen = shown(observations)
        if self.template is not None:
            text = fill(self.template, {**fields, "observations": seen})
        else:
            text = FIRST.replace("{observations}", seen) + (MANY if self.style == "super-short" else "")
        message = {"role": "user", "content": text}
        return [message] if self.system is None else [{"role": "system", "content": self.system}, message]

    def again(self, count: int, observations: Sequence[Pair]) -> Message:
        """The message that asks for one more, after `count` replies."""
        text = AGAIN[self.style].replace("{count}", str(count)).replace("{observations}", shown(observations))
        return {"role": "user", "content": text}


def conversation(
    prompts: Prompts, observations: Sequence[Pair], fields: dict[str, Any], replies: Sequence[str]
) -> list[Message]:
    """The messages that ask for the hypothesis behind `replies`.

    >>> [m["role"] for m in conversation(Prompts(), [(b"1", b"2")], {}, ["one", "two"])]
    ['user', 'assistant', 'user', 'assistant', 'user']
    """
    messages = prompts.first(observations, fields)
    for count, reply in enumerate(replies, start=1):
        messages += [{"role": "assistant", "content": reply}, prompts.again(count, observations)]
    return messages
