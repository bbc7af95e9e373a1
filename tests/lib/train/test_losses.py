"""Losses against worked numbers, finite differences, and the rule that parts add up to the whole."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from toolroll.train import losses  # noqa: E402


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(("advantage", "expected"), [(0.5, -0.6), (-0.5, 0.6107014)])
def test_the_clipped_surrogate(advantage, expected):
    loss, stats = losses.policy_loss(row(-1.0), row(-1.2), torch.tensor([advantage]), row(1.0))
    assert float(loss) == pytest.approx(expected, abs=1e-7)
    assert float(stats["ratio"]) == pytest.approx(1.221403, abs=1e-6)
    assert float(stats["clipped"]) == float(advantage > 0)
    with_kl = float(loss) + 0.04 * float(losses.kl(row(-1.0), row(-0.9)))
    assert with_kl == pytest.approx({0.5: -0.5997932, -0.5: 0.6109082}[advantage], abs=1e-7)


def test_an_asymmetric_clip_and_a_dual_clip():
    new, old, one = row(-1.0), row(-1.4), row(1.0)
    loose, _ = losses.policy_loss(new, old, torch.tensor([1.0]), one, clip_high=0.28)
    assert float(loose) == pytest.approx(-1.28)
    far = row(3.0)
    assert float(losses.policy_loss(far, old, torch.tensor([-1.0]), one, dual_clip=3.0)[0]) == pytest.approx(3.0)
    assert float(losses.policy_loss(far, old, torch.tensor([-1.0]), one)[0]) > 80


def test_the_kl_estimators():
    logp, ref = row(-1.0), row(-0.9)
    found = [float(losses.kl(logp, ref, name)) for name in ("k1", "k2", "k3")]
    assert found == pytest.approx([-0.1, 0.005, 0.00517092], abs=1e-8)
    assert float(losses.kl(row(-50.0), row(0.0), "k1", clamp=10)) == -10


@pytest.mark.parametrize(
    ("pi", "ref", "beta", "margin", "loss"),
    [
        ((-20, -25), (-21, -24), 0.1, 0.2, 0.598139),
        ((-20, -25), (-20, -25), 0.1, 0.0, 0.693147),
        ((-30, -20), (-25, -25), 0.1, -1.0, 1.313262),
        ((-20, -25), (-21, -24), 0.5, 1.0, 0.313262),
    ],
)
def test_dpo(pi, ref, beta, margin, loss):
    tensors = [torch.tensor([float(x)], dtype=torch.float64) for x in (*pi, *ref)]
    found, stats = losses.dpo_loss(*tensors, beta=beta)
    assert float(found) == pytest.approx(loss, abs=1e-6)
    assert float(stats["margin"]) == pytest.approx(margin)


def test_dpo_rewards_weights_and_smoothing():
    tensors = [torch.tensor([x, x], dtype=torch.float64) for x in (-20.0, -25.0, -21.0, -24.0)]
    _, stats = losses.dpo_loss(*tensors)
    assert [float(stats[name]) / 2 for name in ("rewards_chosen", "rewards_rejected")] == pytest.approx([0.1, -0.1])
    none, _ = losses.dpo_loss(*tensors, weight=torch.tensor([0.0, 1.0]), count=1)
    assert float(none) == pytest.approx(0.598139, abs=1e-6)
    smooth, _ = losses.dpo_loss(*tensors, label_smoothing=0.25)
    assert float(smooth) == pytest.approx(0.75 * 0.598139 + 0.25 * 0.798139, abs=1e-6)


def random_batch(seed=0):
    torch.manual_seed(seed)
    shape = (4, 5)
    logp = (-torch.rand(shape, dtype=torch.float64)).requires_grad_()
    mask = (torch.rand(shape) < 0.6).double()
    mask[3] = 0  # a sequence of which the model wrote nothing
    return logp, -torch.rand(shape, dtype=torch.float64), torch.randn(4, dtype=torch.float64), mask


@pytest.mark.parametrize(("norm", "constant"), [("token", None), ("sequence", None), ("constant", 7.0)])
def test_parts_add_up_to_the_whole(norm, constant):
    logp, old, advantage, mask = random_batch()
    settings = {"norm": norm, "constant": constant}
    (whole,) = torch.autograd.grad(losses.policy_loss(logp, old, advantage, mask, **settings)[0], logp)
    count = losses.normaliser(mask, norm, constant)
    parts = sum(
        losses.policy_loss(logp[part], old[part], advantage[part], mask[part], **settings, count=count)[0]
        for part in (slice(0, 1), slice(1, 4))
    )
    (summed,) = torch.autograd.grad(parts, logp)
    assert torch.allclose(whole, summed, atol=1e-15)


@pytest.mark.parametrize("norm", ["token", "sequence"])
def test_what_the_mask_hides_gets_exactly_no_gradient(norm):
    logp, old, advantage, mask = random_batch()
    old = torch.where(mask.bool(), old, torch.inf)  # whatever stands there
    loss, stats = losses.policy_loss(logp, old, advantage, mask, norm=norm)
    loss = loss + losses.reduced(losses.kl(logp, old.clamp(max=9.0)), mask, norm)
    (gradient,) = torch.autograd.grad(loss, logp)
    assert torch.isfinite(gradient).all()
    assert (gradient[mask == 0] == 0).all()
    assert (gradient[mask == 1] != 0).any()
    assert all(torch.isfinite(value) for value in stats.values())


def test_gradients_are_those_of_finite_differences():
    logp, old, advantage, mask = random_batch()
    values = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(7, (2, 3))
    assert torch.autograd.gradcheck(lambda x: losses.policy_loss(x, old, advantage, mask)[0], logp)
    assert torch.autograd.gradcheck(lambda x: losses.value_loss(x, old, old, mask, clip=0.5), values)
    assert torch.autograd.gradcheck(lambda x: losses.token_logprobs(x, ids, 0.7), logits)
    assert torch.autograd.gradcheck(lambda x: losses.entropy(x, 0.7), logits)


def test_logprobs_and_entropy_are_those_of_the_distribution():
    logits = torch.randn(2, 3, 7, dtype=torch.float64)
    ids = torch.randint(7, (2, 3))
    spread = torch.distributions.Categorical(logits=logits / 0.7)
    assert torch.allclose(losses.token_logprobs(logits, ids, 0.7), spread.log_prob(ids))
    assert torch.allclose(losses.entropy(logits, 0.7), spread.entropy())
    assert losses.token_logprobs(logits.bfloat16(), ids).dtype == torch.float32


def test_the_importance_weight_is_cut_and_has_no_gradient():
    old = row(-1.0, -1.0, -1.0).requires_grad_()
    behaviour, mask = row(-1.5, -3.0, -9.0), row(1, 1, 0)
    token = losses.truncated_importance(old, behaviour, mask, level="token", cap=2.0)
    assert token.tolist() == [[pytest.approx(1.648721, abs=1e-6), 2.0, 1.0]]
    sequence = losses.truncated_importance(old, behaviour, mask, level="sequence", cap=100.0)
    assert sequence.tolist() == [[pytest.approx(12.182494, abs=1e-6)]]
    assert not token.requires_grad


def test_advantages_of_gae_by_hand():
    rewards, values, mask = row(0, 9, 0, 1), row(0.5, 7.0, 0.25, 0.75), row(1, 0, 1, 1)
    advantages, returns = losses.gae(rewards, values, mask, gamma=0.9, lam=0.8)
    last = 1 - 0.75
    middle = 0.9 * 0.75 - 0.25 + 0.72 * last
    first = 0.9 * 0.25 - 0.5 + 0.72 * middle
    assert advantages.tolist()[0] == pytest.approx([first, 0, middle, last])
    assert returns.tolist()[0] == pytest.approx([first + 0.5, 0, middle + 0.25, 1])
    full, _ = losses.gae(rewards * mask, values, mask, 1.0, 1.0)
    assert full.tolist()[0] == pytest.approx([0.5, 0, 0.75, 0.25])  # gamma = lam = 1: what is to come, minus the value


def test_whitening_and_the_clipped_critic():
    white = losses.whiten(row(1, 100, 3), row(1, 0, 1))
    assert white.tolist()[0] == pytest.approx([-(0.5**0.5), 0, 0.5**0.5])
    assert losses.whiten(row(4.0, 5.0), row(1, 0)).tolist() == [[0, 0]]
    plain = losses.value_loss(row(1.0), row(0.0), row(1.0), row(1.0))
    clipped = losses.value_loss(row(1.0), row(0.0), row(1.0), row(1.0), clip=0.5)
    assert (float(plain), float(clipped)) == (0.0, 0.125)
