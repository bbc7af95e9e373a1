"""Numbers worked out by hand for each part of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from toolroll.segment.attention import TextAttention
from toolroll.segment.losses import bce_loss, dice_loss, focal_loss
from toolroll.segment.matching import assign, pairwise_costs
from toolroll.segment.metrics import best_ious, class_ious, confusion, iou, mean_iou
from toolroll.segment.proposals import ensemble, semantic_scores

LOGITS, TARGET = torch.tensor([math.log(3), -math.log(3)]), torch.tensor([1.0, 0.0])


def test_losses_of_a_mask():
    assert float(dice_loss(LOGITS, TARGET)) == pytest.approx(0.166667, abs=1e-6)
    assert float(bce_loss(LOGITS, TARGET)) == pytest.approx(0.287682, abs=1e-6)
    focal = (0.25 + 0.75) / 2 * 0.287682 * 0.25**2
    assert float(focal_loss(LOGITS, TARGET)) == pytest.approx(focal, abs=1e-6)


def test_pixels_that_do_not_count():
    logits, target = torch.cat([LOGITS, torch.tensor([9.0])]), torch.tensor([1.0, 0.0, 0.0])
    counted = torch.tensor([1.0, 1.0, 0.0])
    assert float(dice_loss(logits, target, counted)) == pytest.approx(0.166667, abs=1e-6)
    assert float(bce_loss(logits, target, counted)) == pytest.approx(0.287682, abs=1e-6)


@pytest.mark.parametrize(
    ("weight", "joined", "shares"),
    [(0.4, (0.3866, 0.5278), (0.4228, 0.5772)), (0.8, (0.2491, 0.6964), (0.2635, 0.7365))],
)
def test_the_geometric_ensemble(weight, joined, shares):
    made = ensemble(torch.tensor([0.6, 0.4]), torch.tensor([0.2, 0.8]), weight)
    assert made.tolist() == pytest.approx(joined, abs=5e-5)
    assert (made / made.sum()).tolist() == pytest.approx(shares, abs=5e-5)


def test_the_ensemble_at_its_ends():
    own, other = torch.tensor([0.6, 0.4]), torch.tensor([0.2, 0.8])
    assert torch.equal(ensemble(own, other, 0.0), own)
    assert torch.equal(ensemble(own, other, 1.0), other)


def identity_block():
    block = TextAttention(2, 1)
    for linear in (block.attention.query, block.attention.key, block.attention.value, block.attention.out):
        torch.nn.init.eye_(linear.weight)
    return block


def test_attention_to_text():
    block = identity_block()
    state, tokens = torch.tensor([[[1.0, 0.0]]]), torch.eye(2).unsqueeze(0)
    read = block.attention(state, tokens, tokens)
    assert read.flatten().tolist() == pytest.approx([0.6698, 0.3302], abs=5e-5)
    assert (state + read).flatten().tolist() == pytest.approx([1.6698, 0.3302], abs=5e-5)
    made = block(state, torch.zeros(1, 1, 2), tokens)
    assert made.flatten().tolist() == pytest.approx([1.0, -1.0], abs=1e-4)


def test_weights_of_the_blocks():
    blocks = torch.nn.ModuleList(TextAttention(256, 8) for _ in range(9))
    projection = torch.nn.Linear(768, 256)
    assert sum(part.numel() for part in blocks[0].parameters()) == 263_680
    assert sum(part.numel() for part in (*blocks.parameters(), *projection.parameters())) == 2_569_984


def test_the_semantic_map():
    classes = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).softmax(-1)
    masks = torch.tensor([[[2.0, -2.0]], [[-2.0, 2.0]]]).sigmoid()
    scores = semantic_scores(classes, masks)
    assert scores[:, 0, 0].tolist() == pytest.approx([0.7059, 0.1876], abs=5e-5)
    assert scores[:, 0, 1].tolist() == pytest.approx([0.1876, 0.7059], abs=5e-5)
    assert scores.argmax(0).flatten().tolist() == [0, 1]


def test_mean_iou():
    truth, predicted = np.array([0, 0, 0, 1, 1, 255]), np.array([0, 0, 1, 1, 0, 1])
    table = confusion(truth, predicted, 2, ignore=255)
    assert class_ious(table)[0] == pytest.approx([0.5, 1 / 3])
    assert mean_iou(table, "gt") == pytest.approx(0.416667, abs=1e-6)


def test_three_means_of_the_same_masks():
    truth, predicted = np.array([0, 0, 0, 1, 1, 4]), np.array([0, 0, 2, 1, 1, 9])
    table = confusion(truth, predicted, 4)  # class 2 is predicted falsely, 3 is in neither
    assert class_ious(table)[0] == [pytest.approx(2 / 3), 1.0, 0.0, None]
    assert mean_iou(table, "gt") == pytest.approx((2 / 3 + 1) / 2)
    assert mean_iou(table, "union") == pytest.approx((2 / 3 + 1) / 3)
    assert mean_iou(table, "all") == pytest.approx((2 / 3 + 1) / 4)
    assert mean_iou(confusion(truth * 0 - 1, predicted, 4), "gt") is None


def test_recall_of_proposals():
    truth = [np.array([[1, 1, 0, 0]], bool), np.array([[0, 0, 0, 1]], bool)]
    proposals = [np.array([[1, 0, 0, 0]], bool), np.array([[0, 1, 1, 1]], bool)]
    assert best_ious(truth, proposals) == pytest.approx([0.5, 1 / 3])
    assert best_ious(truth, proposals, np.array([[1, 0, 1, 1]], bool)) == pytest.approx([1.0, 0.5])
    assert best_ious(truth, []) == [0.0, 0.0]
    assert iou(truth[0], truth[1] & False) == 0.0


def test_the_cheapest_assignment():
    classes = torch.zeros(1, 3, 3)
    masks = torch.full((1, 3, 4), -9.0)
    masks[0, 0, 2:] = masks[0, 2, :2] = 9.0
    targets = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]])
    costs = pairwise_costs(classes, masks, torch.tensor([[0, 1]]), targets)
    assert float(costs[0, 2, 0]) == pytest.approx(-2 / 3, abs=1e-2)  # the mask is right, the class a third
    queries, segments = assign(costs, [2])[0]
    assert sorted(zip(queries.tolist(), segments.tolist(), strict=True)) == [(0, 1), (2, 0)]


def test_fewer_queries_than_segments_and_none():
    costs = torch.rand(2, 2, 5, generator=torch.Generator().manual_seed(0))
    some, none = assign(costs, [5, 0])
    assert len(set(some[1].tolist())) == 2
    assert none[0].tolist() == none[1].tolist() == []
