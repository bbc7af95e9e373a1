"""PPO: where the reward is paid, what the critic learns, and that injected tokens have no part in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import training

from toolroll.train.critic import open_critic
from toolroll.train.objective import CriticOptions, Objective
from toolroll.train.options import TrainOptions
from toolroll.train.sample import Known, Sample
from toolroll.train.setup import open_reference, open_trainer
from toolroll.train.update import PolicyUpdate

torch = training.torch
OPTIONS = TrainOptions(lr=1e-3, device="cpu", weight_decay=0.0)


def samples(count=6, seed=0):
    names = ("prompt_ids", "response_ids", "loss_mask", "logprobs")
    return [
        Sample(*[row[name] for name in names], reward=row["reward"]["total"])
        for row in training.rollouts(count, seed=seed)
    ]


def opened(options=None):
    trainer = open_trainer(OPTIONS, str(training.TINY))
    return trainer, open_critic(str(training.TINY), options or CriticOptions(), OPTIONS, trainer.team)


def known(rows, value=0.0, ref=None):
    return [
        Known(
            old=torch.tensor(row.logprobs),
            ref=None if ref is None else torch.tensor(row.logprobs) - ref,
            values=torch.full((len(row.mask),), value) * torch.tensor(row.mask),
        )
        for row in rows
    ]


def test_with_no_discount_every_token_gets_the_whole_reward_back():
    """gamma = lambda = 1 and values 0: the return of each token is the reward, wherever injected tokens stand."""
    _, critic = opened()
    rows = [Sample([1], [2, 3, 4], [1, 0, 1], [-1.0, 0.0, -1.0], reward=0.8), Sample([1], [5], [1], [-1.0], reward=0.2)]
    facts = known(rows)
    critic.judge(rows, facts, 0.0)
    assert facts[0].returns.tolist() == pytest.approx([0.8, 0.0, 0.8])
    assert facts[1].returns.tolist() == pytest.approx([0.2])
    own = torch.tensor([0.8, 0.8, 0.2])
    white = (own - own.mean()) / own.std()
    found = [facts[0].advantage[0], facts[0].advantage[2], facts[1].advantage[0]]
    assert torch.stack(found).tolist() == pytest.approx(white.tolist(), abs=1e-5)
    assert facts[0].advantage[1] == 0


def test_the_reward_is_paid_at_the_last_token_of_the_model():
    """With lambda = 0 only that token's advantage sees it: delta = r + V' - V."""
    _, critic = opened(CriticOptions(gae_lambda=0.0))
    rows = [Sample([1], [2, 3, 4, 5], [1, 1, 0, 0], [-1.0, -1.0, 0.0, 0.0], reward=1.0)]
    facts = known(rows)
    critic.judge(rows, facts, 0.0)
    assert facts[0].returns.tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_the_divergence_is_taken_off_each_tokens_reward():
    """k1 = old - ref = 0.5 a token: three tokens' returns are 1 less what is still to be paid."""
    _, critic = opened()
    rows = [Sample([1], [2, 9, 3, 4], [1, 0, 1, 1], [-1.0, 0.0, -1.0, -1.0], reward=1.0)]
    facts = known(rows, ref=0.5)
    critic.judge(rows, facts, 0.1)
    assert facts[0].returns.tolist() == pytest.approx([1 - 0.15, 0.0, 1 - 0.1, 1 - 0.05], abs=1e-6)


def test_the_critic_learns_the_rewards():
    trainer, critic = opened(CriticOptions(critic_lr=3e-2, value_clip=0.0))
    update = PolicyUpdate(trainer, Objective(algo="ppo"), critic=critic)
    rows = [replace(row, reward=0.7) for row in samples()]
    first = update.run(rows, 1)
    for step in range(2, 40):
        last = update.run(rows, step)
    assert first["value_mean"] == 0.0
    assert first["value_loss"] == pytest.approx(0.7**2 / 2, rel=1e-4)
    assert last["value_loss"] < 0.01
    assert last["value_mean"] == pytest.approx(0.7, abs=0.1)


def test_the_policy_is_pushed_towards_what_was_rewarded():
    trainer, critic = opened()
    update = PolicyUpdate(trainer, Objective(algo="ppo", old="recompute"), critic=critic)
    good, bad = Sample([1, 2], [3, 4], [1, 1], reward=1.0), Sample([1, 2], [5, 6], [1, 1], reward=0.0)

    def gap():
        with torch.no_grad():
            sums = [float(training.logprobs(trainer.model, [1, 2], row.response).sum()) for row in (good, bad)]
        return sums[0] - sums[1]

    before = gap()
    for step in range(1, 6):
        update.run([good, bad], step)
    assert gap() > before + 0.1


def test_injected_tokens_have_no_part_in_what_is_learnt():
    """Whatever was recorded of them, the update is the same to the bit, the critic's included."""
    rows = samples()
    spoiled = [
        replace(row, logprobs=[p if own else -50.0 for p, own in zip(row.logprobs, row.mask, strict=True)])
        for row in rows
    ]
    ends = []
    for given in (rows, spoiled):
        trainer, critic = opened()
        reference = open_reference(trainer, str(training.TINY), 1.0)
        update = PolicyUpdate(
            trainer, Objective(algo="ppo", kl_coef=0.1, entropy_coef=0.01), reference=reference, critic=critic
        )
        figures = update.run(given, 1)
        ends.append((figures, trainer.learner.tensors(), critic.learner.tensors()))
    (one, weights, values), (other, weights_too, values_too) = ends
    assert one == other
    assert all(torch.equal(weights[name], weights_too[name]) for name in weights)
    assert all(torch.equal(values[name], values_too[name]) for name in values)


def test_the_last_token_injected_is_no_action():
    """A row that ends in injected text learns the same as one without that end."""
    ends = []
    for tail, mask in (([], []), ([7, 8], [0, 0])):
        trainer, critic = opened()
        row = Sample([1, 2], [3, 4, *tail], [1, 1, *mask], [-4.0, -4.0, *[0.0] * len(tail)], reward=1.0)
        other = Sample([1, 2], [5], [1], [-4.0], reward=0.0)
        PolicyUpdate(trainer, Objective(algo="ppo"), critic=critic).run([row, other], 1)
        ends.append(trainer.learner.tensors())
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0])
