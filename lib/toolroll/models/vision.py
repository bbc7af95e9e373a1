"""Image-text models: the model, its processor, and images as the tensors the model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolroll.errors import RowError, ToolrollError, first_line
from toolroll.models.adapters import is_adapter
from toolroll.models.codec import HFCodec
from toolroll.models.device import Device
from toolroll.models.images import open_image as open_image
from toolroll.models.images import with_places as with_places
from toolroll.models.load import Loaded, find_model, loading, quiet, short_name, weights_id, whole
from toolroll.models.videos import without_videos

TOKEN_FEATURES = ("token_type_ids", "mm_token_type_ids")  #: one number a token of the text


def takes_images(name: str, notify: Callable[[str], None] = lambda _: None, *, trust_remote_code: bool = False) -> bool:
    """Whether the model `name` (as for `load_causal_lm`) is an image-text model, by its configuration."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    place = find_model(name, notify)
    if is_adapter(place):
        return False
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise ToolrollError(f"has no configuration that can be read: {reason}", place=name) from error
    return config.model_type in KNOWN


def load_processor(
    name: str, notify: Callable[[str], None] = lambda _: None, *, trust_remote_code: bool = False
) -> Any:
    """The processor of an image-text model: its tokenizer and what turns images into tensors. It reads no videos."""
    from transformers import AutoProcessor

    try:
        with quiet(), without_videos():
            return AutoProcessor.from_pretrained(find_model(name, notify), trust_remote_code=trust_remote_code)
    except ImportError as error:
        why = first_line(error).partition(". ")[0]
        raise ToolrollError(f"its processor needs a package: {why}", place=name) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolrollError(f"its processor cannot be loaded: {first_line(error)}", place=name) from error


def load_image_text(
    name: str, device: Device, *, trust_remote_code: bool = False, notify: Callable[[str], None] = lambda _: None
) -> Loaded:
    """Load the image-text model `name` on `device`, in eval mode. Raises ToolrollError with `name` as its place."""
    from transformers import AutoModelForImageTextToText

    place = find_model(name, notify)
    processor = load_processor(name, notify, trust_remote_code=trust_remote_code)
    with loading("an image-text model", name), quiet():
        model = whole(
            AutoModelForImageTextToText.from_pretrained(
                place,
                dtype=getattr(torch, device.dtype),
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        )
        model.to(device.name)
    ends = getattr(model.generation_config, "eos_token_id", None)
    codec = HFCodec(processor.tokenizer, ends if isinstance(ends, list) else [] if ends is None else [ends])
    return Loaded(model.eval(), codec, short_name(name), weights_id(place, model), device, processor)


def processed(processor: Any, text: str, paths: Sequence[Any]) -> tuple[list[int], dict[str, Tensor]]:
    """Token ids of a text with its images' places filled, and the images as tensors, by the model's argument names.

    `paths` are files, or pictures of Pillow in memory. Nothing is cut, and no special token is added to the text.
    """
    images = [open_image(path) if isinstance(path, Path) else path for path in paths]
    try:
        made = processor(images=[images], text=[text], return_tensors="pt", add_special_tokens=False)
    except (ValueError, IndexError, TypeError, StopIteration) as error:
        why = first_line(error)
        raise RowError(f"the processor does not take the prompt and its {len(images)} images: {why}") from error
    features = {name: value for name, value in made.items() if isinstance(value, Tensor)}
    features.pop("attention_mask", None)
    ids: list[int] = features.pop("input_ids")[0].tolist()
    image_id = getattr(processor, "image_token_id", None)
    if image_id is not None and image_id not in ids:
        raise RowError("the prompt has no place for its images")
    return ids, features


def check_parts(messages: Sequence[Any]) -> None:
    """RowError where contents are lists of anything but texts and places of images."""
    for part in (part for message in messages for part in message["content"]):
        if part.get("type") != "image" and not (part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise RowError('a part of a message is {"type": "image"} or {"type": "text", "text": ...}')


def chat_text(processor: Any, messages: Sequence[Any]) -> str:
    """The prompt text for messages whose contents are lists of parts, as `processed` takes it.

    A processor without a chat template gets the contents, a line each. RowError for messages that the template refuses.
    As transformers does with chats, the tokenizer's own beginning of a text goes before a template that has none.
    """
    from jinja2 import TemplateError

    check_parts(messages)
    if not getattr(processor, "chat_template", None):
        return "\n".join(_plain(processor, message["content"]) for message in messages)
    try:
        text = str(processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        raise RowError(f"the chat template refuses these messages: {first_line(error)}") from error
    begin = processor.tokenizer.bos_token
    if not begin or text.startswith(begin):
        return text
    ids = processor.tokenizer("")["input_ids"]
    return begin + text if processor.tokenizer.bos_token_id in ids else text


def image_mark(processor: Any) -> str:
    """What stands for an image in the text that a processor takes."""
    return str(getattr(processor, "image_token", None) or "<image>")


def _plain(processor: Any, parts: Sequence[Any]) -> str:
    """A message's contents without a template: a line break between images and text."""
    made = ""
    for before, part in zip([None, *parts], parts, strict=False):
        if before is not None and before["type"] != part["type"]:
            made += "\n"
        made += image_mark(processor) if part["type"] == "image" else part["text"]
    return made


def side_by_side(features: Sequence[Mapping[str, Tensor]], longest: int) -> dict[str, Tensor]:
    """The tensors of several texts as one batch: images one after the other, numbers a token padded to `longest`."""
    names = features[0].keys() if features else ()
    return {
        name: torch.cat([_padded(part[name], (longest,)) for part in features])
        if name in TOKEN_FEATURES
        else _joined([part[name] for part in features])
        for name in names
    }


def _joined(parts: list[Tensor]) -> Tensor:
    """Tensors one after the other; where they differ in size (tiles an image has, say) zeros fill up."""
    sizes = tuple(max(size) for size in zip(*(part.shape[1:] for part in parts), strict=True))
    return torch.cat([_padded(part, sizes) for part in parts])


def _padded(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape[1:]) == sizes:
        return tensor
    made = tensor.new_zeros((tensor.shape[0], *sizes))
    made[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return made
