"""Prompts as people write them, and as vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.load import shipped
from toolroll.segment import prompts
from toolroll.segment.text import Reader, open_text

CLIP = str(Path(__file__).resolve().parents[2] / "data" / "tiny-clip")


def test_lines_lists_and_files_say_the_same(tmp_path):
    wanted = (("sky",), ("road", "city street"), ("car",))
    assert prompts.read_prompts(" sky;road ,  city   street; car;") == wanted
    assert prompts.given_prompts(["sky", ["road", "city street"], "car"]) == wanted
    (tmp_path / "names.txt").write_text("0:sky\n\n1:road,city street\ncar\n")
    assert prompts.read_prompts_file(tmp_path / "names.txt") == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no prompts"),
        ("  ", "no prompts"),
        ("sky;;car", "a prompt is empty"),
        ("sky; car,", "a prompt is empty"),
        ("sky; road; Sky", "'Sky' is there twice"),
        ("road, street; street", "'street' is there twice"),
    ],
)
def test_prompts_that_cannot_be(text, why):
    with pytest.raises(RowError, match=why):
        prompts.read_prompts(text)


@pytest.mark.parametrize("value", [7, [], [[]], [["a", 3]], {"a": 1}, [None]])
def test_fields_that_are_none(value):
    with pytest.raises(RowError):
        prompts.given_prompts(value)


def test_templates(tmp_path):
    assert len(prompts.read_templates("vild")) == 14
    assert all(template.count("{}") == 1 for template in prompts.VILD)
    (tmp_path / "own.txt").write_text("a drawing of a {}\n")
    assert prompts.read_templates(str(tmp_path / "own.txt")) == ("a drawing of a {}",)
    (tmp_path / "own.txt").write_text("no place\n")
    with pytest.raises(UsageError, match=r"no \{\}"):
        prompts.read_templates(str(tmp_path / "own.txt"))
    with pytest.raises(UsageError, match="neither"):
        prompts.read_templates("nowhere")


def test_background():
    some = prompts.read_prompts("sky; road, street")
    assert prompts.with_background(some, "void") == some
    assert prompts.with_background(some, "Street") == some
    assert prompts.with_background(some, "other")[-1] == ("other",)


@pytest.fixture(scope="module")
def lexicon():
    return open_text("lexicon")


def test_like_words_are_near(lexicon):
    pairs = {("car", "vehicle"): 0.7, ("road", "street"): 0.6, ("tree", "trees"): 0.7}
    for (one, other), least in pairs.items():
        a, b, far = lexicon.texts([one, other, "sky"])
        assert float(a @ b) > least > float(a @ far) + 0.3


def test_what_it_does_not_know(lexicon):
    with pytest.raises(RowError, match="in the lexicon"):
        lexicon.texts(["\u4eba"])


def test_padding_and_owners(lexicon):
    reader = Reader(lexicon, words=True)
    text = reader.read([prompts.read_prompts("sky; road, street; car"), prompts.read_prompts("zebra crossing")])
    assert text.classes == 3
    assert text.owners.tolist() == [[0, 1, 1, 2], [0, -1, -1, -1]]
    assert text.real.sum(1).tolist() == [4, 2]
    assert bool((text.tokens[1, 2:] == 0).all())


def test_templates_are_averaged(lexicon):
    vector = Reader(lexicon, ("a {}", "the {}")).phrase("car")
    both = lexicon.texts(["a car", "the car"]).mean(0)
    assert torch.allclose(vector, both / both.norm())


def test_no_such_encoder(tmp_path):
    (tmp_path / "vectors.safetensors").write_bytes(b"nothing")
    with pytest.raises(ToolrollError, match="no table of words"):
        open_text(str(tmp_path))
    (tmp_path / "vectors.safetensors").write_bytes((shipped("lexicon") / "vectors.safetensors").read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ToolrollError, match="its tokenizer cannot be read"):
        open_text(str(tmp_path))


def test_a_prompt_is_never_cut():
    encoder = open_text(CLIP)
    with pytest.raises(RowError, match=r"'red red .*' has more than the \d+ tokens that .* reads"):
        encoder.texts(["blue", " ".join(["red"] * 400)])
