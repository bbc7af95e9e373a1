"""What tests of training share: a tiny model, rollouts of it with made-up advantages, and an update done plainly."""

from __future__ import annotations

import copy
import json
import random
import warnings
from functools import cache
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
    import torch
    import transformers

TINY = Path(__file__).parent / "data" / "tiny-llama"
VOCABULARY = 64


def tiny() -> Any:
    """The tiny model, loaded anew."""
    return transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)


def logprobs(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Log-probability of each response token, from one pass over one sequence."""
    scores = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    return scores[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


def rollouts(count: int, *, seed: int = 0, samples: int = 4) -> list[dict[str, Any]]:
    """Rows as group-advantage writes them, the same each time; a third of the response tokens are injected."""
    return copy.deepcopy(_rollouts(count, seed, samples))


@cache
def _rollouts(count: int, seed: int, samples: int) -> list[dict[str, Any]]:
    chance, model, rows = random.Random(seed), tiny(), []
    for i in range(count):
        prompt = [chance.randrange(VOCABULARY) for _ in range(chance.randrange(2, 9))]
        response = [chance.randrange(VOCABULARY) for _ in range(chance.randrange(3, 20))]
        mask = [1, *(int(chance.random() < 0.67) for _ in response[1:])]
        with torch.no_grad():
            found = logprobs(model, prompt, response).tolist()
        group = i // samples
        rows.append(
            {
                "id": f"q{group}",
                "sample": i % samples,
                "prompt_id": f"q{group}",
                "draw": group,
                "distribution": "ab"[group % 2],
                "policy_version": "v000000",
                "prompt_ids": prompt,
                "response_ids": response,
                "loss_mask": mask,
                "logprobs": [value if own else 0.0 for value, own in zip(found, mask, strict=True)],
                "advantage": chance.gauss(0, 1),
                "reward": {"total": chance.random()},
            }
        )
    return rows


def lines(rows: list[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a published version."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two sets of weights of the same names."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
