"""Processors of image-text models without their half for videos, which needs torchvision and is never used here.

Qwen2-VL and later, SmolVLM, InternVL and others have one, and cannot be loaded without it as they are. Images are read
by the same code either way.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_SPELLS_OUT = "transformers.models.smolvlm.processing_smolvlm"  # numbers of frames, by the package num2words


class NoVideos(dict[str, Any]):
    """Stands in a processor where one for videos would be; empty, as a dictionary of its settings."""

    num_frames = fps = None  # what SmolVLM's chats have as defaults

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse, as a processor without torchvision does."""
        raise ValueError("videos need torchvision")


@contextmanager
def without_videos() -> Iterator[None]:
    """In it, processors are loaded with `NoVideos`, where torchvision or num2words is not installed."""
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor
    from transformers.processing_utils import ProcessorMixin

    check = ProcessorMixin.check_argument_for_proper_class

    def checked(self: Any, name: str, given: Any) -> Any:
        return NoVideos if isinstance(given, NoVideos) else check(self, name, given)

    with ExitStack() as undo:

        def put(owner: Any, name: str, made: Any) -> None:
            undo.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, made)

        if importlib.util.find_spec("torchvision") is None:
            put(AutoVideoProcessor, "from_pretrained", classmethod(lambda *_, **__: NoVideos()))
            put(ProcessorMixin, "check_argument_for_proper_class", checked)
        if importlib.util.find_spec("num2words") is None:
            put(importlib.import_module(_SPELLS_OUT), "num2words", str)
        yield
