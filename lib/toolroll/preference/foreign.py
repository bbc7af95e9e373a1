"""Pairs as other projects write them, in TRL's form: `prompt`, `chosen`, `rejected`, `images`.

TRL       these fields, or messages of `chosen` and `rejected` that begin with the prompt
RLAIF-V   `question`, `chosen`, `rejected`, `image` or `image_path`
POVID     `conversations`, `rejected_conversations` of {"from", "value"}, `image`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolroll.errors import RowError
from toolroll.preference.scoring import Names, image_names

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MARK = "<image>"  #: what stands for an image in texts of LLaVA's kind


def in_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that have to be set to make it a pair in TRL's form. RowError for what is no pair.

    >>> in_form({"question": "What?", "chosen": "A cube.", "rejected": "A dog.", "image": "a.png"})["chosen"]
    [{'role': 'assistant', 'content': [{'type': 'text', 'text': 'A cube.'}]}]
    """
    images = image_names(Names(fields))
    found = {} if fields.get("images") or not images else {"images": images}
    if fields.get("conversations") is not None:
        return {**found, **_povid(fields, len(images))}
    for name in ("chosen", "rejected"):
        if fields.get(name) is None:
            raise RowError(f"no `{name}`")
    if fields.get("prompt") is not None:
        return found
    if fields.get("question") is not None:
        texts = [fields[name] for name in ("question", "chosen", "rejected")]
        if not all(isinstance(text, str) for text in texts):
            raise RowError("`question`, `chosen` and `rejected` are not all text")
        return {**found, **pair(asked(texts[0], len(images)), texts[1], texts[2])}
    return {**found, **_implicit(fields["chosen"], fields["rejected"])}


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
            "content": asked(text, images)[0]["content"] if at == first else [{"type": "text", "text": text}],
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


def places(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many images messages have places for."""
    parts = [message.get("content") for message in messages]
    return sum(part.get("type") == "image" for content in parts if isinstance(content, list) for part in content)
