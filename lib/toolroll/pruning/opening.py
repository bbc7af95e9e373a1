"""Image-text models that are to be pruned, in this process, and what rows ask of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolroll.errors import RowError, ToolrollError, first_line
from toolroll.models.asked import PromptReader
from toolroll.models.device import choose_device
from toolroll.models.load import Loaded, introduced
from toolroll.models.options import PromptOptions
from toolroll.models.padded import Batches
from toolroll.models.vision import load_image_text, takes_images
from toolroll.pruning.plan import Plan
from toolroll.pruning.support import parts_of, window_of


def open_model(name: str, device: str, dtype: str, *, notify: Callable[[str], None], trust_remote_code: bool) -> Loaded:
    """Load an image-text model whose layers the plug-in can work on. ToolrollError with its name for any other."""
    chosen = choose_device(device, dtype)
    if not takes_images(name, notify, trust_remote_code=trust_remote_code):
        raise ToolrollError("is no image-text model", place=name)
    notify(introduced(name, f"transformers on {chosen.text}"))
    loaded = load_image_text(name, chosen, trust_remote_code=trust_remote_code, notify=notify)
    try:
        parts_of(loaded.model, Plan())
    except ToolrollError as error:
        raise ToolrollError(error.why, place=name) from error
    return loaded


def longest(loaded: Loaded) -> int | None:
    """The longest sequence of a model in tokens, where its configuration says; as far as all layers look back."""
    config = loaded.model.config.get_text_config()
    found = (getattr(config, "max_position_embeddings", None), window_of(config))
    return min((one for one in found if isinstance(one, int)), default=None)


def reader_of(loaded: Loaded, asking: PromptOptions, images: Path | None) -> PromptReader:
    """What turns rows into token ids and tensors."""
    return PromptReader(loaded.codec, loaded.processor, asking.prompter, most=longest(loaded), folder=images)


def one_by_one(work: Callable[[Sequence[Any]], list[Any] | None], items: Sequence[Any]) -> list[Any] | None:
    """`work` on all items together, or each alone where that fails: a RowError in the place of one that fails alone.

    None where the work was stopped.
    """
    try:
        return work(items)
    except (RowError, RuntimeError, ValueError, IndexError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "CUDA" in str(error) and "memory" not in str(error):
            raise
        if len(items) == 1:
            why = first_line(error)
            return [error if isinstance(error, RowError) else RowError(f"the model does not take it: {why}")]
    found: list[Any] = []
    for item in items:
        alone = one_by_one(work, [item])
        if alone is None:
            return None
        found += alone
    return found


def batches_of(loaded: Loaded, stopped: Callable[[], bool], kind: type[Batches] = Batches) -> Any:
    """What writes and scores batches of answers."""
    return kind(loaded.model, loaded.codec.eos_ids, most=longest(loaded), top=0, codec=loaded.codec, stopped=stopped)
