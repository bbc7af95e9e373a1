"""What a pass of a pruned model multiplies, counted from its stages: equal to torch's count of the products it runs.

It is more than the formulas of `flops` say: text queries are multiplied with all visual keys, causal masks are counted
as if they were full, strips have a margin, and batches are filled up.
"""

from __future__ import annotations

from toolroll.pruning.attention import View
from toolroll.pruning.flops import TERMS
from toolroll.pruning.plugin import Pruner


def executed(pruner: Pruner) -> dict[str, int]:
    """FLOPs of the last pass in the language model by part (see `flops.TERMS`), text included, without logits.

    Attention between text tokens and of text with visual tokens is `attention_text`. With the authors' softmax or
    while heads are measured, nothing is skipped and this says nothing.
    """
    assert pruner.now is not None
    made = dict.fromkeys(TERMS, 0)
    for layer, number in enumerate(pruner.stage_of):
        part = _layer(pruner, layer, pruner.now.views[number])
        made = {name: made[name] + part[name] for name in TERMS}
    return made


def _layer(pruner: Pruner, layer: int, view: View) -> dict[str, int]:
    shape, stage, heads = pruner.parts.shape, view.stage, pruner.heads[layer]
    text, visual = len(stage.text_rows), len(stage.visual_rows)
    pruned = pruner.splits(layer) and stage.any_visual and not heads.all_active
    active = len(heads.active) if pruned else shape.heads
    used = len(heads.used) if pruned else shape.kv_heads
    side = 4 * shape.hidden * shape.head_dim
    neurons = pruner.plan.neurons(shape)
    net = 6 if shape.gated else 4
    between, around = _pairs(pruner, layer, view)
    return {
        "proj_qo": side * (text * shape.heads + visual * active),
        "proj_kv": side * (text * shape.kv_heads + visual * used),
        "attention_visual": 4 * shape.head_dim * between,
        "attention_text": 4 * shape.head_dim * around,
        "ffn": net * shape.hidden * (text * shape.ffn + visual * neurons),
    }


def _pairs(pruner: Pruner, layer: int, view: View) -> tuple[int, int]:
    """Pairs times heads: of visual queries, of text queries (of all where they are not apart)."""
    shape, stage, heads = pruner.parts.shape, view.stage, pruner.heads[layer]
    batch, tokens = stage.cells.place.shape
    so_far = view.memory.all.count
    if not (pruner.splits(layer) and stage.any_visual):
        active = len(heads.active) if pruner.splits(layer) else shape.heads
        own = batch * tokens * (view.memory.text.count if pruner.splits(layer) else so_far)
        return 0, active * batch * tokens * so_far + (shape.heads - active) * own
    active, text = len(heads.active), stage.text_cells.count
    around = (shape.heads - active) * batch * text * view.memory.text.count
    if pruner.plan.window is None:
        return 0, around + active * batch * tokens * so_far
    like = pruner.parts.text.get_input_embeddings().weight
    inside = sum(strip.pairs for strip, _ in view.strips(like))
    return active * inside, around + active * batch * text * view.seen.count
