"""A language model made ready for training, and written out as a model that any reader loads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolroll.errors import ToolrollError, UsageError
from toolroll.models.load import find_model, load_causal_lm
from toolroll.models.vision import load_image_text, takes_images
from toolroll.train.batch import Padded
from toolroll.train.head import Scorer
from toolroll.train.loop import Learner
from toolroll.train.options import TrainOptions
from toolroll.train.team import Team


@dataclass
class Trainer:
    """What training a policy needs: the processes, the model's learner, its scorer and its tokenizer.

    `tokenizer` is the whole processor where the model takes images.
    """

    team: Team
    learner: Learner
    scorer: Scorer
    tokenizer: Any
    source_dtype: torch.dtype
    options: TrainOptions

    @property
    def model(self) -> Any:
        """The model: a transformers causal LM, or peft's wrapper of one."""
        return self.learner.model

    @property
    def processor(self) -> Any:
        """The processor of a model that takes images, else None."""
        return self.tokenizer if hasattr(self.tokenizer, "tokenizer") else None

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @contextmanager
    def base(self) -> Iterator[None]:
        """The model as it was before the first update: with --lora, the adapters out of the way."""
        with self.model.disable_adapter():
            yield

    def write(self, folder: Path, *, dtype: torch.dtype | None = None, adapter: bool = False) -> None:
        """Write the model and its tokenizer as a Hugging Face folder; `adapter`: only what --lora trained."""
        if adapter:
            self.model.save_pretrained(folder)
        else:
            write_model(self.model, folder, dtype or self.source_dtype)
        self.tokenizer.save_pretrained(folder)


def open_trainer(
    options: TrainOptions,
    source: str,
    *,
    seed: int = 0,
    team: Team | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Trainer:
    """Load the causal LM `source` (a folder, a hub id, a .gguf file, "embedded") for training with `options`.

    Weights are float32. `seed` determines the adapters' first weights. Everything but the adapters' own dropout is
    off: log-probabilities under the policy are those the rollouts had. `notify` hears what was chosen.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    team = team or Team(options.device, options.dtype)
    loaded = frozen_model(source, team, notify)
    model = loaded.model
    source_dtype = _dtype_of(source, notify)
    for parameter in model.parameters():
        parameter.requires_grad_(not options.lora)
    if options.gradient_checkpointing:
        save_memory(model)
    if options.lora:
        model = _with_adapters(model, options, seed)
    scorer = Scorer(model)
    model.train()
    learner = Learner(
        model,
        team,
        rate=options.rate,
        betas=options.betas,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
    )
    trained = sum(parameter.numel() for parameter in learner.parameters)
    processes = f", {team.world} processes" if team.world > 1 else ""
    notify(f"model {loaded.name} ({loaded.weights_id}) on {team.choice.text}{processes}; {trained:,} weights to train")
    tokenizer = loaded.codec.tokenizer if loaded.processor is None else loaded.processor
    return Trainer(team, learner, scorer, tokenizer, source_dtype, options)


def frozen_model(source: str, team: Team, notify: Callable[[str], None] = lambda _: None) -> Any:
    """A model (`models.load.Loaded`) in float32 that gets no gradients and has its dropout off."""
    device = replace(team.choice, name=str(team.device), dtype="float32")
    load = load_image_text if takes_images(source, notify) else load_causal_lm
    loaded = load(source, device, notify=notify)
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    without_dropout(loaded.model)
    return loaded


def open_reference(
    trainer: Trainer, name: str | None, temperature: float, notify: Callable[[str], None] = lambda _: None
) -> Callable[[Padded], Tensor] | None:
    """Log-probabilities [B, T] under the model `name`, or the adapters' base; None where rows must carry them."""
    if name is not None:
        scorer = Scorer(frozen_model(name, trainer.team, notify).model)
        return lambda batch: scorer(batch, temperature, want_entropy=False)[0]
    if not trainer.options.lora:
        return None

    def base(batch: Padded) -> Tensor:
        with trainer.base():
            return trainer.scorer(batch, temperature, want_entropy=False)[0]

    return base


def save_memory(model: Any) -> None:
    """Have a model's layers make their activations anew in the backward pass (gradient checkpointing)."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off for good, in training mode too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def write_model(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a causal LM as a plain Hugging Face folder in `dtype`, its adapters, if any, added into the weights.

    The model itself is left as it is: adding adapters in and taking them out again would round its weights.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in _merged(inner).items()
    }
    with torch.device("meta"):
        plain = type(inner)(inner.config)
    plain.load_state_dict(weights, assign=True, strict=False)
    plain.tie_weights()
    plain.generation_config = inner.generation_config
    plain.config.dtype = dtype
    plain.save_pretrained(folder)


def _merged(inner: Any) -> dict[str, Tensor]:
    """The weights under the names they have without adapters."""
    added = {
        f"{name}.weight": layer.get_delta_weight(layer.active_adapters[0]).detach()
        for name, layer in inner.named_modules()
        if hasattr(layer, "get_delta_weight") and layer.active_adapters
    }
    found: dict[str, Tensor] = {}
    for name, tensor in inner.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        found[plain] = tensor + added[plain].to(tensor.dtype) if plain in added else tensor
    return found


def _with_adapters(model: Any, options: TrainOptions, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ToolrollError("needs peft: pip install 'toolroll[lora]'", place="--lora") from error
    targets: Any = options.lora_targets
    torch.manual_seed(seed)
    alpha = options.lora_alpha if options.lora_alpha is not None else 2 * options.lora
    config = LoraConfig(
        r=options.lora,
        lora_alpha=alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets if targets == "all-linear" else targets.split(","),
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers for what it calls by another name by now
            return get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(str(error).splitlines()[0], place="--lora-targets") from error


def _dtype_of(source: str, notify: Callable[[str], None]) -> torch.dtype:
    """The type a model's weights are stored in."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(find_model(source, notify), trust_remote_code=False).dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
