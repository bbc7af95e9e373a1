"""Only names of files are put into other words for JSON; what it has no form for is an error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import orjson
import pytest

from toolroll.io.rows import plain


def test_names_that_are_not_utf8_become_escapes():
    name = os.fsdecode(b"a\xff.png")
    assert plain({"image": Path(name), "all": (name, 1, None, 0.5)}) == {
        "image": "a\\udcff.png",
        "all": ["a\\udcff.png", 1, None, 0.5],
    }


@pytest.mark.parametrize("value", [np.float32(0.5), np.zeros(2), object(), {1}])
def test_what_json_has_no_form_for_does_not_become_a_text(value):
    with pytest.raises(TypeError):
        orjson.dumps(plain({"score": value}))
