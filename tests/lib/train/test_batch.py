"""Padding, portions, and the output layer for the tokens of the mask only."""

from __future__ import annotations

import pytest
import training
from hypothesis import given
from hypothesis import strategies as st

from toolroll.train import head
from toolroll.train.batch import deal, fill, pad
from toolroll.train.head import Scorer
from toolroll.train.losses import entropy, token_logprobs
from toolroll.train.update import portions

torch = training.torch


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_a_micro_batch_holds_each_sequence_once_and_no_more_tokens_than_allowed(lengths, most):
    groups = fill(lengths, most)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) * max(lengths[i] for i in group) <= most or len(group) == 1 for group in groups)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 5))
def test_processes_share_all_sequences_and_about_as_many_each(lengths, world):
    hands = deal(lengths, world)
    assert sorted(i for hand in hands for i in hand) == list(range(len(lengths)))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


@given(st.integers(1, 200), st.integers(1, 200))
def test_portions_are_even_and_as_few_as_can_be(count, most):
    parts = list(portions(count, most))
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) <= most
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == -(-count // most)


def sequences():
    rows = training.rollouts(6)
    return tuple([row[name] for row in rows] for name in ("prompt_ids", "response_ids", "loss_mask"))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("want_entropy", [True, False])
@pytest.mark.parametrize("limits", [(1 << 20, 1 << 20), (1 << 20, 0), (4 * 64 * 7, 1 << 20), (1024, 0)])
def test_log_probabilities_and_gradients_are_those_of_the_whole_logits(monkeypatch, limits, temperature, want_entropy):
    """In one part or in several, with logits kept or made anew."""
    monkeypatch.setattr(head, "PART_BYTES", limits[0])
    monkeypatch.setattr(head, "KEPT_BYTES", limits[1])
    one, other = training.tiny(), training.tiny()
    batch = pad(*sequences())
    scorer = Scorer(one)
    assert scorer.direct
    logp, spread = scorer(batch, temperature, want_entropy=want_entropy)
    worth = torch.linspace(-1, 1, logp.numel()).view_as(logp)
    (logp * worth + (spread * worth.flip(1) if want_entropy else 0)).sum().backward()
    expected = torch.zeros(())
    for b, (prompt, response, mask) in enumerate(zip(*sequences(), strict=True)):
        logits = other(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        own = torch.tensor(mask).bool()
        single, entropies = token_logprobs(logits, torch.tensor(response), temperature), entropy(logits, temperature)
        assert torch.allclose(logp[b, : len(response)][own], single[own], atol=1e-5)
        assert not logp[b, : len(response)][~own].any()
        assert not logp[b, len(response) :].any()
        expected = expected + (single * worth[b, : len(response)])[own].sum()
        if want_entropy:
            assert torch.allclose(spread[b, : len(response)][own], entropies[own], atol=1e-5)
            expected = expected + (entropies * worth.flip(1)[b, : len(response)])[own].sum()
    expected.backward()
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=2e-5), name


def test_the_gradient_of_the_layer_alone():
    """Against finite differences, with a bias."""
    torch.manual_seed(0)
    states, weight, bias = (
        torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((5, 3), (7, 3), (7,))
    )
    ids = torch.tensor([0, 6, 2, 2, 5])

    def layer(states, weight, bias):
        logp, spread = head._HeadLogprobs.apply(states, weight, bias, ids, 0.8, True)
        return logp.sin().sum() + spread.cos().sum()

    layer(states, weight, bias).backward()
    for tensor in (states, weight, bias):
        for place in (0, tensor.numel() - 1):
            step = torch.zeros(tensor.numel(), dtype=torch.float64)
            step[place] = 1e-3
            ends = []
            for sign in (1, -1):
                moved = [t + sign * step.view_as(t) if t is tensor else t for t in (states, weight, bias)]
                ends.append(float(layer(*moved).detach()))
            assert float(tensor.grad.view(-1)[place]) == pytest.approx((ends[0] - ends[1]) / 2e-3, abs=2e-3)


def test_a_model_that_caps_its_logits_is_asked_for_them():
    config = training.transformers.Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=2.0,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = training.transformers.Gemma2ForCausalLM(config).eval()
    scorer = Scorer(model)
    assert not scorer.direct
    logp, _ = scorer(pad(*sequences()))
    prompt, response, mask = (part[0] for part in sequences())
    own = torch.tensor(mask).bool()
    assert torch.allclose(logp[0, : len(response)][own], training.logprobs(model, prompt, response)[own], atol=1e-5)
