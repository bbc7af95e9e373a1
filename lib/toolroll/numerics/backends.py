"""What runs a configuration: transformers in this process, or vLLM."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolroll.models.base import Codec
from toolroll.models.device import Device
from toolroll.models.padded import Asked, Written
from toolroll.numerics.grid import Setting
from toolroll.run.log import Log


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready to answer in one configuration.

    `write` answers a batch, in order, or gives None when it was stopped. `processor` is that of an image-text model,
    `most` the longest sequence in tokens. `config` is what records say of the configuration, `weight_bytes` None where
    the back end does not tell.
    """

    write: Callable[[Sequence[Asked]], list[Written] | None]
    codec: Codec
    processor: Any
    most: int | None
    config: dict[str, Any]
    weight_bytes: int | None


class Transformers:
    """Prepares models with transformers; the one in hand stays while the next configuration needs the same.

    `model` is a folder, hub id, .gguf file or "embedded"; `top` how many probable tokens an answer tells.
    """

    def __init__(
        self,
        model: str,
        device: Device,
        *,
        top: int,
        log: Log,
        stopped: Callable[[], bool],
        trust_remote_code: bool = False,
    ) -> None:
        self._model = model
        self._device = device
        self._top = top
        self._log = log
        self._stopped = stopped
        self._trust = trust_remote_code
        self._held: tuple[Any, Any] | None = None  # what was asked for, and the model made for it
        self._told = False  # that the processor has no fused multiply-add

    def __call__(self, setting: Setting) -> Prepared:
        """The model for `setting`, on as many threads as that says. ToolrollError when it cannot be."""
        import torch

        from toolroll.models.padded import Batches
        from toolroll.numerics.environment import environment, exact_products
        from toolroll.numerics.load import Precision, load

        torch.set_num_threads(setting.threads or self._device.threads)
        if setting.linear == "auto":
            setting = replace(setting, linear=self._linear(setting.precision))
        keep = None if setting.keep == "auto" else setting.keep
        wanted = Precision(setting.precision, keep, setting.linear, setting.tp, setting.attention)
        if self._held is None or self._held[0] != wanted:
            self._held = None
            gc.collect()
            exact_products(self._device)
            made = load(
                self._model,
                self._device,
                wanted,
                trust_remote_code=self._trust,
                notify=self._log.note,
                warn=self._log.warn,
            )
            self._held = (wanted, made)
        ready = self._held[1]
        loaded = ready.loaded
        most = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        casting = setting.precision == "layercast"
        computed = "fp32" if casting else setting.precision
        kv = computed if setting.kv == "auto" else setting.kv
        batches = Batches(
            loaded.model,
            loaded.codec.eos_ids,
            most=most,
            top=max(2, self._top),
            kv=kv,
            extra=ready.extra,
            stopped=self._stopped,
        )
        config = {
            "model": loaded.name,
            "weights": loaded.weights_id,
            "backend": "hf",
            "precision": setting.precision,
            "weight_dtype": ready.kept,
            "kv_dtype": kv,
            "linear": setting.linear if casting else "torch",
            "attention": setting.attention,
            "batch_size": setting.batch,
            "tp": setting.tp,
            "tp_simulated": setting.tp > 1,
            "devices": 1,
            "threads": torch.get_num_threads(),
            **environment(self._device, "transformers", *_compilers(setting, self._device)),
        }
        return Prepared(batches.write, loaded.codec, loaded.processor, most, config, ready.weight_bytes)

    def _linear(self, precision: str) -> str:
        """The linear layer of layercast where none is asked for."""
        if self._device.is_cuda:
            return "blocked"
        if precision == "layercast":
            from toolroll.numerics.fused_cpu import is_possible

            if not is_possible():
                if not self._told:
                    self._log.note("--linear blocked: the processor has no fused multiply-add")
                self._told = True
                return "blocked"
        return "fused"


def _compilers(setting: Setting, device: Device) -> tuple[str, ...]:
    """The package that compiles the kernels of `setting`, if it has any."""
    if setting.precision != "layercast" or setting.linear != "fused":
        return ()
    return ("triton",) if device.is_cuda else ("numba",)
