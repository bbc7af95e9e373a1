"""The caches that kv-eval compares: read once each, and what is said when one of transformers fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolroll.errors import ToolrollError
from toolroll.kvcache.caches import Compared, compared
from toolroll.kvcache.evaluate import Wanted, evaluate
from toolroll.kvcache.running import Prompts, open_model
from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.padded import Asked

TINY = str(Path(__file__).resolve().parents[2] / "data" / "tiny-llama")


def test_a_foreign_cache_fails_in_one_line_and_ours_as_it_is():
    theirs = Compared("hqq:bits=1", lambda *_: None, foreign=True)
    with pytest.raises(ToolrollError) as found, theirs.at_work():
        raise RuntimeError("sizes 208 and\n213 differ")
    assert found.value.place == "hqq:bits=1"
    assert found.value.why == "transformers' cache: sizes 208 and 213 differ; axis_key=0,axis_value=0 takes any length"
    with pytest.raises(RuntimeError, match="ours"), Compared("lloyd1", lambda *_: None).at_work():
        raise RuntimeError("ours")


@pytest.mark.parametrize("reference", [None, [5, 6, 7]])
def test_prompts_are_read_once_for_each_cache(monkeypatch, reference):
    """Answers and comparisons from one reading are those from two, as a foreign cache has it."""
    loaded = open_model(TINY, choose_device("cpu", "float32"), trust_remote_code=False, notify=lambda _: None)
    names = ("dense", "lloyd1:bits=1", "minmax:bits=2,tau=0/3", "kivi:group=4,residual=0")
    caches = [compared(name, loaded.model.config) for name in names]
    batch = [
        Wanted(Asked(list(range(5, 5 + n)), Sampling(max_tokens=6, temperature=0.0)), np.arange(n) < n - 3, reference)
        for n in (21, 14)
    ]
    read = []
    step = Prompts._step
    monkeypatch.setattr(Prompts, "_step", lambda *args: read.append(args[1].shape) or step(*args))

    def rows(given):
        read.clear()
        return list(evaluate(Prompts(loaded), batch, given, dense=given[0], beams=1, timings=False))

    once = rows(caches)
    assert read.count((2, 21)) == len(caches)
    assert [row["cache"] for row in once] == [name for name in names for _ in batch]
    assert any(row["kl"] > 0 for row in once[2:])
    again = rows([caches[0], *(replace(one, foreign=True) for one in caches[1:])])
    assert read.count((2, 21)) == 2 * len(caches) - 1
    assert again == once
