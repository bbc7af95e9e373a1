"""Which models can be pruned, and the grids of their visual tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_models
import torch
from pruned_models import FAMILIES, model_of, prompt

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import RowError, ToolrollError
from toolroll.pruning.plan import Drop, Plan, same_heads
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.spans import knows_grids, marked
from toolroll.pruning.support import parts_of

GRIDS = {
    "llava": [(4, 4), (4, 4)],
    "llava-next": [(4, 4), (4, 9), (4, 4), (8, 5)],
    "qwen2-vl": [(2, 5), (5, 2)],
    "qwen2.5-vl": [(2, 5), (5, 2)],
    "idefics3": [(2, 2)] * 6,
    "smolvlm": [(2, 2)] * 6,
    "internvl": [(2, 2)] * 6,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_grids_of_a_wide_and_a_tall_image(family):
    """40 x 16 and 16 x 40 pixels, in patches of 4, merged by two or not, in tiles of 16."""
    model, processor = model_of(family)
    ids, features = prompt(processor, "a ", 1, " and ", 2)
    marks = marked(model.config, ids, None, features)
    assert knows_grids(model.config)
    found = list(marks.grids[0])
    if family in ("idefics3", "smolvlm", "internvl"):
        assert set(found) == {(2, 2)}
        assert len(found) % 2 == 0
    else:
        assert found == GRIDS[family]
    n = int((ids == model.config.image_token_id).sum())
    assert sum(rows * columns for rows, columns in found) == n
    visual = marks.visual[0]
    last = marks.tile[0][visual].diff()
    assert bool((last >= 0).all())
    for tile, (rows, columns) in enumerate(found):
        own = visual & (marks.tile[0] == tile)
        places = [(int(r), int(c)) for r, c in zip(marks.row[0][own], marks.column[0][own], strict=True)]
        assert places == [(r, c) for r in range(rows) for c in range(columns)]


def test_the_last_token_counts_as_text():
    model, _ = model_of("llava")
    image = model.config.image_token_id
    ids = torch.tensor([[5, *[image] * 16], [*[image] * 16, 0]])
    mask = torch.tensor([[1] * 17, [1] * 16 + [0]])
    marks = marked(model.config, ids, mask, {})
    assert marks.visual.sum(1).tolist() == [15, 15]
    assert not marks.visual[0, -1]
    assert not marks.visual[1, 15]
    assert marks.tile[0, -1] == -1


def test_images_and_tokens_that_do_not_fit():
    model, _ = model_of("llava")
    image = model.config.image_token_id
    with pytest.raises(RowError, match="7 visual tokens do not fit the grids"):
        marked(model.config, torch.tensor([[*[image] * 7, 5]]), None, {})
    qwen, processor = model_of("qwen2-vl")
    ids, features = prompt(processor, "a ", 1, " and ", 2)
    with pytest.raises(RowError, match="20 visual tokens, and images for 10 of them"):
        marked(qwen.config, ids, None, {"image_grid_thw": features["image_grid_thw"][:1]})


@pytest.fixture(scope="module")
def llava():
    return tiny_models.image_model("llava")[0]


def refused(model, why, plan=None):
    with pytest.raises(ToolrollError, match=why) as told:
        parts_of(model, plan or Plan())
    assert "\n" not in str(told.value)


def test_fused_projections_are_refused():
    from transformers import AutoModelForImageTextToText, LlavaConfig

    words = tiny_models._words()
    config = LlavaConfig(
        vision_config=tiny_models._vision(model_type="clip_vision_model"),
        text_config=tiny_models._text(words, model_type="phi3"),
        image_token_index=words.image_token_id,
        image_seq_length=16,
    )
    refused(AutoModelForImageTextToText.from_config(config), "its projections are fused: layer 0 has no q_proj")


def test_images_that_look_both_ways_are_refused():
    from transformers import AutoModelForImageTextToText, Gemma3Config

    config = Gemma3Config(
        text_config={**tiny_models.GROUPED, "vocab_size": 300, "head_dim": 8, "image_token_id": 290},
        vision_config=tiny_models._vision(model_type="siglip_vision_model"),
        image_token_index=290,
        mm_tokens_per_image=4,
    )
    refused(AutoModelForImageTextToText.from_config(config), "attend to each other in both directions")


def test_other_attention_is_refused():
    from transformers import AutoModelForImageTextToText, LlavaConfig

    words = tiny_models._words()

    def model(**text):
        config = LlavaConfig(
            vision_config=tiny_models._vision(model_type="clip_vision_model"),
            text_config=tiny_models._text(words, **text),
            image_token_index=words.image_token_id,
            image_seq_length=16,
        )
        return AutoModelForImageTextToText.from_config(config)

    sliding = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    refused(model(model_type="qwen2", **sliding), "an attention of another kind")


def test_models_that_are_no_image_text_models(llava):
    refused(llava.model.language_model, "is no image-text model|no image-text model with image tokens")
    refused(SimpleNamespace(config=llava.config), "not a stack of decoder layers")


def test_layers_that_are_not_plain(llava):
    """Quantized layers and adapters hold no plain weight of which rows could be taken."""

    class Other(torch.nn.Linear):
        pass

    layer = llava.model.language_model.layers[1]
    for name, owner, plan in (
        ("v_proj", layer.self_attn, Plan(heads=same_heads(1, parts_of(llava, Plan()).shape))),
        ("down_proj", layer.mlp, Plan(ffn=2)),
    ):
        whole = getattr(owner, name)
        setattr(owner, name, Other(whole.in_features, whole.out_features, bias=False))
        refused(llava, f"{name} of layer 1 is a Other, not a plain linear layer", plan)
        parts_of(llava, Plan(window=3, cut=1))
        setattr(owner, name, whole)
    net = layer.mlp
    layer.mlp = torch.nn.Identity()
    refused(llava, "feed-forward net of layer 1 has no gate_proj", Plan(ffn=2))
    layer.mlp = net


def test_grids_that_are_not_known(llava):
    kind = type(llava.config)
    llava.config.__class__ = type("Other", (kind,), {"model_type": "other"})
    try:
        refused(llava, "the grid of visual tokens of other is not known, as --window needs", Plan(window=3))
        parts_of(llava, Plan(cut=1))
    finally:
        llava.config.__class__ = kind


def test_layers_that_add_to_visual_tokens(llava):
    llava.config.vision_config.deepstack_visual_indexes = [0]
    try:
        refused(llava, "its first 1 layers add to visual tokens, and visual tokens end at layer 0", Plan(cut=0))
        parts_of(llava, Plan(drops=(Drop(1, 0.5),)))
    finally:
        del llava.config.vision_config.deepstack_visual_indexes


def test_another_attention_function_is_refused(llava):
    llava.set_attn_implementation({"text_config": "flex_attention"})
    with pytest.raises(ToolrollError, match="its attention is flex_attention"):
        Pruner(llava, Plan(cut=1))
    llava.set_attn_implementation({"text_config": "sdpa"})
