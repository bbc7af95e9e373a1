"""One update, against the same thing written out plainly on one sequence at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import training

from toolroll.train.objective import Objective
from toolroll.train.options import TrainOptions
from toolroll.train.sample import Demands, Sample
from toolroll.train.setup import open_reference, open_trainer
from toolroll.train.update import PolicyUpdate

torch = training.torch
OPTIONS = TrainOptions(lr=1e-2, device="cpu", weight_decay=0.0)


def samples(count=8, seed=0):
    return [
        Sample(
            row["prompt_ids"],
            row["response_ids"],
            row["loss_mask"],
            row["logprobs"],
            row["advantage"],
            row["reward"]["total"],
        )
        for row in training.rollouts(count, seed=seed)
    ]


class Watch:
    """Keeps the gradient of each step, before it is scaled down."""

    def __init__(self, learner):
        self.gradients = []
        self._measure = learner._gradient_norm
        self._learner = learner
        learner._gradient_norm = self

    def __call__(self):
        self.gradients.append({n: p.grad.clone() for n, p in self._learner.model.named_parameters()})
        return self._measure()


def run(objective, rows, options=OPTIONS, reference=None):
    trainer = open_trainer(options, str(training.TINY))
    watch = Watch(trainer.learner)
    known = reference and open_reference(trainer, reference, objective.temperature)
    figures = PolicyUpdate(trainer, objective, reference=known).run(rows, 1)
    return figures, watch.gradients, trainer


def plain_loss(model, rows, objective, ref=None):
    """Equation by equation, without padding."""
    total, weights = 0.0, []
    for row in rows:
        mask = torch.tensor(row.mask, dtype=torch.float32)
        logits = model(torch.tensor([[*row.prompt, *row.response]])).logits[0, len(row.prompt) - 1 : -1]
        logp_all = (logits / objective.temperature).log_softmax(-1)
        logp = logp_all.gather(-1, torch.tensor(row.response)[:, None]).squeeze(-1)
        ratio = (logp - torch.tensor(row.logprobs)).exp()
        clipped = ratio.clamp(1 - objective.clip_ratio, 1 + (objective.clip_ratio_high or objective.clip_ratio))
        loss = -torch.minimum(ratio * row.advantage, clipped * row.advantage)
        loss = loss + objective.entropy_coef * (logp_all.exp() * logp_all).sum(-1)
        if ref is not None:
            d = training.logprobs(ref, list(row.prompt), list(row.response)).detach() - logp
            loss = loss + objective.kl_coef * (d.exp() - d - 1)
        sums = (loss * mask).sum()
        if objective.loss_norm == "sequence":
            sums = sums / mask.sum()
        total = total + sums
        weights.append({"token": float(mask.sum()), "sequence": 1.0, "constant": objective.loss_constant or 0.0})
    return total / sum(weight[objective.loss_norm] for weight in weights)


def moved_off_policy(rows):
    """The same rows as if an older policy had sampled them, so that ratios differ and some are clipped."""
    return [
        replace(row, logprobs=[p + 0.4 * math.sin(3 * i + j) for j, p in enumerate(row.logprobs)])
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
def test_the_gradient_is_that_of_the_plain_loss_however_it_is_divided(norm):
    rows = moved_off_policy(samples())
    objective = Objective(loss_norm=norm, loss_constant=20.0, entropy_coef=0.1, clip_ratio_high=0.3, temperature=0.9)
    model = training.tiny()
    expected = plain_loss(model, rows, objective)
    expected.backward()
    for micro_tokens in (1, 60, 10_000):
        figures, (gradient,), _ = run(replace(objective, micro_tokens=micro_tokens), rows)
        assert figures["loss"] == pytest.approx(float(expected.detach()), abs=1e-5)
        assert 0 < figures["clip_frac"] < 1
        for name, parameter in model.named_parameters():
            assert torch.allclose(gradient[name], parameter.grad, atol=1e-6), (name, micro_tokens)


def test_the_divergence_from_a_reference_has_its_gradient():
    rows = samples()
    model, ref = training.tiny(), training.tiny()
    objective = Objective(kl_coef=0.5)
    options = OPTIONS
    trainer = open_trainer(options, str(training.TINY))
    with torch.no_grad():
        for one, other in zip(model.parameters(), trainer.model.parameters(), strict=True):
            one.mul_(1.3)
            other.copy_(one)
    watch = Watch(trainer.learner)
    reference = open_reference(trainer, str(training.TINY), 1.0)
    figures = PolicyUpdate(trainer, objective, reference=reference).run(rows, 1)
    expected = plain_loss(model, rows, objective, ref)
    expected.backward()
    assert figures["loss"] == pytest.approx(float(expected.detach()), abs=1e-5)
    assert figures["kl"] > 0.001
    for name, parameter in model.named_parameters():
        assert torch.allclose(watch.gradients[0][name], parameter.grad, atol=2e-6), name


def test_what_is_recorded_at_injected_tokens_changes_nothing():
    """Neither the log-probabilities they were sampled with nor those of the reference."""
    rows = [replace(row, ref_logprobs=row.logprobs) for row in samples()]
    spoiled = [
        replace(
            row,
            logprobs=[p if own else -50.0 for p, own in zip(row.logprobs, row.mask, strict=True)],
            ref_logprobs=[p if own else 40.0 for p, own in zip(row.logprobs, row.mask, strict=True)],
        )
        for row in rows
    ]
    objective = Objective(kl_coef=0.1, entropy_coef=0.1)
    (clean, (one,), _), (dirty, (other,), _) = run(objective, rows), run(objective, spoiled)
    assert clean == dirty
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_injected_token_is_not_pushed_at_all():
    """A token that only injected text has gets a gradient as input, none as output: the output layer is not tied."""
    rows = [Sample([1, 2], [3, 60, 4], [1, 0, 1], [-4.0, 0.0, -4.0], 1.0)]
    _, (gradient,), trainer = run(Objective(), rows)
    assert trainer.model.lm_head.weight is not trainer.model.model.embed_tokens.weight
    with_it = [replace(rows[0], mask=[1, 1, 1], logprobs=[-4.0, -4.0, -4.0])]
    _, (trained,), _ = run(Objective(), with_it)
    states = 2  # hidden states that predict a token of the mask
    rank = torch.linalg.matrix_rank(gradient["lm_head.weight"], rtol=1e-5)
    assert (int(rank), int(torch.linalg.matrix_rank(trained["lm_head.weight"], rtol=1e-5))) == (states, 3)
    assert gradient["model.embed_tokens.weight"][60].abs().max() > 0  # it is in the context of the next token


def test_rows_without_a_token_of_the_model_count_and_contribute_nothing():
    rows = samples(4)
    empty = Sample([1, 2], [3, 4], [0, 0], [0.0, 0.0], 5.0)
    for norm, factor in (("token", 1.0), ("sequence", 4 / 5)):
        objective = Objective(loss_norm=norm)
        figures, (gradient,), _ = run(objective, rows)
        same, (other,), _ = run(objective, [*rows, empty])
        assert same["loss"] == pytest.approx(figures["loss"] * factor, rel=1e-5)
        assert torch.allclose(other["lm_head.weight"], gradient["lm_head.weight"] * factor, atol=1e-7)


def test_old_probabilities_made_anew_start_at_ratio_one():
    rows = moved_off_policy(samples())
    figures, _, _ = run(Objective(old="recompute"), rows)
    assert figures["ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert figures["clip_frac"] == 0


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_weights_correct_for_who_sampled(level):
    """Against the gradient of sum(w * A * logp) / tokens, w = min(pi / pi_behaviour, cap), which it is at ratio 1."""
    rows = moved_off_policy(samples())
    objective = Objective(old="recompute", importance=level, importance_cap=1.3)
    model = training.tiny()
    total, tokens = 0.0, 0
    for row in rows:
        mask = torch.tensor(row.mask, dtype=torch.float32)
        logp = training.logprobs(model, list(row.prompt), list(row.response))
        step = (logp.detach() - torch.tensor(row.logprobs)) * mask
        weight = (step.sum() if level == "sequence" else step).exp().clamp(max=1.3)
        total = total - (weight * row.advantage * logp * mask).sum()
        tokens += int(mask.sum())
    (total / tokens).backward()
    _, (gradient,), _ = run(objective, rows)
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradient[name], parameter.grad, atol=2e-6), name


def test_mini_batches_and_epochs_are_steps():
    rows = samples(8)
    _, gradients, _ = run(Objective(mini_batch=3, epochs=2), rows)
    assert len(gradients) == 6
    model = training.tiny()
    plain_loss(model, rows[:2], Objective()).backward()  # 8 rows in 3 portions: 2, 3, 3
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[0][name], parameter.grad, atol=1e-6), name


def test_a_gradient_that_is_not_finite_stops_and_leaves_the_model(monkeypatch):
    from toolroll.errors import ToolrollError

    trainer = open_trainer(OPTIONS, str(training.TINY))
    before = {name: value.clone() for name, value in trainer.learner.tensors().items()}
    rows = [replace(samples(1)[0], advantage=1e38, logprobs=[-3e2] * len(samples(1)[0].response))]
    with pytest.raises(ToolrollError, match="diverged"):
        PolicyUpdate(trainer, Objective(clip_ratio=1e30), seed=0).run(rows, 1)
    after = trainer.learner.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


class TestDemands:
    row = training.rollouts(1)[0]

    def refusal(self, objective=None, ref_logprobs=False, **changes):
        from types import SimpleNamespace

        from toolroll.errors import RowError

        fields = {"ref_logprobs": None, **self.row, **changes}
        demands = Demands(objective or Objective(), 64, ref_logprobs)
        try:
            demands.sample(SimpleNamespace(prompt="", images=None, image=None, image_path=None, **fields))
        except RowError as error:
            return error.why
        return None

    def test_a_good_row_is_taken(self):
        assert self.refusal() is None
        assert self.refusal(Objective(old="recompute"), logprobs=None) is None
        assert self.refusal(Objective(algo="ppo"), advantage=None) is None

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"prompt_ids": None}, "no `prompt_ids`"),
            ({"response_ids": None}, "no `response_ids`"),
            ({"loss_mask": None}, "no `loss_mask`"),
            ({"response_ids": [], "loss_mask": [], "logprobs": []}, "the response is empty"),
            ({"prompt_ids": []}, "the prompt is empty"),
            ({"logprobs": None}, "no `logprobs`; --old recompute does without"),
            ({"logprobs": [0.0]}, "1 logprobs for "),
            ({"loss_mask": [1]}, "1 loss_mask for "),
            ({"advantage": None}, "no `advantage`"),
            ({"advantage": math.inf}, "not finite"),
            ({"advantage": math.nan}, "not finite"),
            ({"prompt_ids": [64]}, "outside the model's vocabulary of 64"),
            ({"prompt_ids": [-1]}, "outside the model's vocabulary"),
        ],
    )
    def test_what_cannot_be_trained_on_is_refused(self, changes, why):
        assert why in self.refusal(**changes)

    def test_what_only_some_settings_need(self):
        assert "ref_logprobs" in self.refusal(ref_logprobs=True)
        assert "no `reward`" in self.refusal(Objective(algo="ppo"), reward=None)
        assert "not 0 and 1" in self.refusal(loss_mask=[2] * len(self.row["loss_mask"])).replace(
            "something else than", "not"
        )
        infinite = [math.inf, *self.row["logprobs"][1:]]
        assert "logprobs has a value that is not finite" in self.refusal(logprobs=infinite)
