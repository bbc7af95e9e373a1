"""What kv-eval says when a cache of transformers fails."""

from __future__ import annotations

import pytest

from toolroll.errors import ToolrollError
from toolroll.kvcache.compared import Compared


def test_a_foreign_cache_fails_in_one_line_and_ours_as_it_is():
    theirs = Compared("hqq:bits=1", lambda *_: None, foreign=True)
    with pytest.raises(ToolrollError) as found, theirs.at_work():
        raise RuntimeError("sizes 208 and\n213 differ")
    assert found.value.place == "hqq:bits=1"
    assert found.value.why == "transformers' cache: sizes 208 and 213 differ; axis_key=0,axis_value=0 takes any length"
    with pytest.raises(RuntimeError, match="ours"), Compared("lloyd1", lambda *_: None).at_work():
        raise RuntimeError("ours")
