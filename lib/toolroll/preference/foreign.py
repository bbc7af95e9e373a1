"""Pairs as other projects write them, in TRL's form and back: `prompt`, `chosen`, `rejected`, `images`.

TRL       these fields, or messages of `chosen` and `rejected` that begin with the prompt
RLAIF-V   `question`, `chosen`, `rejected`, `image` or `image_path`
POVID     `conversations`, `rejected_conversations` of {"from", "value"}, `image`; LLaVA's form, with a second answer
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from toolroll.errors import RowError
from toolroll.models.images import Names, image_names, places, with_places
from toolroll.preference.texts import text_of

Form = Literal["trl", "rlaifv", "llava"]

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}
SIDES = ("chosen", "rejected")
THREE = ("prompt", *SIDES)
MARK = "<image>"  #: what stands for an image in texts of LLaVA's kind
_MARKED = re.compile(r"<[^<>\s]*(?:image|img)[^<>\s]*>|\[IMG\]", re.IGNORECASE)  # in texts of any model's kind


def in_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that have to be set to make it a pair in TRL's form. RowError for what is no pair.

    One that has `prompt`, `chosen` and `rejected` is such a pair, whatever of other forms it has besides. Marks for
    images in the text of messages give way to places.

    >>> in_form({"question": "What?", "chosen": "A cube.", "rejected": "A dog.", "image": "a.png"})["chosen"]
    [{'role': 'assistant', 'content': [{'type': 'text', 'text': 'A cube.'}]}]
    """
    images = image_names(Names(fields))
    made: dict[str, Any] = {} if not images or fields.get("images") == images else {"images": images}
    made |= _three(fields, len(images))
    values: list[Any] = [made.get(name, fields.get(name)) for name in THREE]
    texts = [text_of(value, name) for name, value in zip(THREE, values, strict=True)]
    if values[0] == []:
        raise RowError("`prompt` is empty")
    if images and not isinstance(values[0], str) and MARK in texts[0]:
        made["prompt"] = _unmarked(values[0], len(images))
    elif images and texts == values and not _MARKED.search(texts[0]):
        made |= pair(asked(texts[0], len(images)), texts[1], texts[2])
    return made


def _three(fields: Mapping[str, Any], images: int) -> dict[str, Any]:
    """What of prompt and answers a record has in another form; nothing where it has all three."""
    if all(fields.get(name) is not None for name in THREE):
        return {}
    if fields.get("conversations") is not None:
        return _povid(fields, images)
    for name in SIDES:
        if fields.get(name) is None:
            raise RowError(f"no `{name}`")
    if fields.get("question") is None:
        return _implicit(fields["chosen"], fields["rejected"])
    texts = [fields[name] for name in ("question", *SIDES)]
    if not all(isinstance(text, str) for text in texts):
        raise RowError("`question`, `chosen` and `rejected` are not all text")
    return pair(asked(texts[0], images), texts[1], texts[2])


#: Fields of other forms, and those of TRL's that take their place.
_REPLACED = {"image": "images", "conversations": "chosen", "rejected_conversations": "rejected"}


def replaced(fields: Mapping[str, Any]) -> dict[str, None]:
    """The fields of a pair in TRL's form that have to go: the same stands in that form, and may change there.

    >>> replaced({"image": "a.png", "images": ["a.png"], "question": "What?"})
    {'image': None}
    """
    return {name: None for name, other in _REPLACED.items() if name in fields and other in fields}


def out_of_form(fields: Mapping[str, Any], form: Form) -> dict[str, Any]:
    r"""The fields of a pair in TRL's form that have to be set to give it another; None for one that has to go.

    RowError for a pair that the form has no room for: RLAIF-V's has that for one question and one image, LLaVA's for
    one image.

    >>> made = out_of_form({**pair(asked("What?", 1), "A cube.", "A dog."), "images": ["a.png"]}, "llava")
    >>> made["conversations"], made["image"]
    ([{'from': 'human', 'value': '<image>\nWhat?'}, {'from': 'gpt', 'value': 'A cube.'}], 'a.png')
    """
    if form == "trl":
        return {}
    images = image_names(Names(fields))
    if len(images) > 1:
        raise RowError(f"{len(images)} images, and the form {form} has room for one")
    prompt = fields.get("prompt")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt or ())
    said = [(str(turn.get("role")), _bare(text_of([turn], "prompt"))) for turn in turns]
    one, other = (text_of(fields.get(name), name) for name in ("chosen", "rejected"))
    image = images[0] if images else None
    if form == "rlaifv":
        if [role for role, _ in said] != ["user"]:
            raise RowError("the prompt is not one question, and the form rlaifv has room for one")
        gone = dict.fromkeys(["prompt", "images", "image"])
        return {"question": said[0][1], "chosen": one, "rejected": other, "image_path": image, **gone}
    if not said or any(role not in _NAMES for role, _ in said):
        raise RowError("the prompt has no conversation of a user and an assistant")
    first = next((at for at, (role, _) in enumerate(said) if role == "user"), 0)
    before = [
        {"from": _NAMES[role], "value": f"{MARK}\n{text}" if image is not None and at == first else text}
        for at, (role, text) in enumerate(said)
    ]
    answers = [[*before, {"from": "gpt", "value": text}] for text in (one, other)]
    gone = dict.fromkeys(["prompt", "images", "image_path", "question", "chosen", "rejected"])
    return {"conversations": answers[0], "rejected_conversations": answers[1], "image": image, **gone}


def asked(text: str, images: int) -> list[dict[str, Any]]:
    """A prompt of one message: the places of its images, then the text."""
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": _bare(text)}]
    return [{"role": "user", "content": content}]


def answered(text: str) -> list[dict[str, Any]]:
    """An answer as messages."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def pair(prompt: list[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    """The three fields of a pair."""
    return {"prompt": prompt, "chosen": answered(chosen), "rejected": answered(rejected)}


def _povid(fields: Mapping[str, Any], images: int) -> dict[str, Any]:
    one, other = (_turns(fields.get(name), name) for name in ("conversations", "rejected_conversations"))
    *before, last = one
    if last[0] != "assistant" or other[-1][0] != "assistant":
        raise RowError("a conversation does not end with an answer")
    first = next((at for at, (role, _) in enumerate(before) if role == "user"), None)
    if first is None:
        raise RowError("a conversation without a question")
    prompt = [
        {
            "role": role,
            "content": asked(text, images)[0]["content"] if at == first else [{"type": "text", "text": _bare(text)}],
        }
        for at, (role, text) in enumerate(before)
    ]
    return pair(prompt, last[1], other[-1][1])


def _turns(given: Any, name: str) -> list[tuple[str, str]]:
    sound = isinstance(given, list) and given and all(isinstance(turn, dict) for turn in given)
    turns = [(_ROLES.get(str(turn.get("from"))), turn.get("value")) for turn in given] if sound else []
    if not turns or any(role is None or not isinstance(text, str) for role, text in turns):
        raise RowError(f'`{name}` is no conversation of {{"from": "human" or "gpt", "value": text}}')
    return [(str(role), str(text)) for role, text in turns]


def _implicit(chosen: Any, rejected: Any) -> dict[str, Any]:
    """Prompt and answers of two conversations that begin alike."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise RowError("no `prompt`, and no `question`")
    shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if one != other:
            break
        shared += 1
    if not shared:
        raise RowError("no `prompt`, and `chosen` and `rejected` do not begin alike")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _bare(text: str) -> str:
    return text.replace(f"{MARK}\n", "").replace(f"\n{MARK}", "").replace(MARK, "").strip()


def _unmarked(messages: Sequence[Mapping[str, Any]], images: int) -> list[Any]:
    """Messages without marks in their texts; where these were their only places, the images go before the question."""

    def bare(content: Any) -> Any:
        if isinstance(content, str):
            return _bare(content) if MARK in content else content
        return [{**part, "text": _bare(part["text"])} if MARK in str(part.get("text")) else part for part in content]

    made = [{**message, "content": bare(message["content"])} for message in messages]
    return with_places(made, None if places(made) else images)
