"""Learning rates, steps of the optimizer, adapters, and what is published of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import training

from toolroll.errors import ToolrollError, UsageError
from toolroll.records import IMAGE_FIELDS
from toolroll.run.rows import Rows
from toolroll.train.checkpoint import Consumed
from toolroll.train.feed import Feed
from toolroll.train.objective import Objective
from toolroll.train.options import TrainOptions, learning_rate
from toolroll.train.sample import Demands
from toolroll.train.setup import open_trainer, without_dropout

torch = training.torch


def test_the_learning_rate_rises_and_falls():
    settings = {"lr": 1.0, "warmup": 0.25, "total_steps": 8}
    assert [learning_rate(s, schedule="constant", **settings) for s in (1, 2, 3, 8, 20)] == [0.5, 1, 1, 1, 1]
    cosine = [learning_rate(s, schedule="cosine", **settings) for s in range(3, 10)]
    assert cosine[0] == 1.0
    assert cosine[3] == pytest.approx(0.5)
    assert cosine[6] == pytest.approx(0.0)
    assert cosine == sorted(cosine, reverse=True)


def test_a_schedule_needs_an_end():
    with pytest.raises(UsageError):
        TrainOptions(schedule="linear")
    with pytest.raises(UsageError):
        TrainOptions(warmup=0.1)
    assert TrainOptions(warmup=10).rate(5) == 0.5e-6


def test_parts_add_up_to_one_step_which_is_adamws():
    """Against torch.optim.AdamW on the whole loss, with the gradient scaled down."""
    trainer = open_trainer(TrainOptions(lr=1e-2, device="cpu", max_grad_norm=0.5), str(training.TINY))
    other = training.tiny()
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.01)
    ids = torch.arange(12).view(2, 6)

    def loss(model, part):
        return model(part).logits.logsumexp(-1).sum()

    for _ in range(2):
        trainer.learner.minimise(loss(trainer.model, part) for part in (ids[:1], ids[1:]))
        optimizer.zero_grad()
        loss(other, ids).backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        optimizer.step()
    for mine, theirs in zip(trainer.model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_state_goes_from_one_learner_to_another_of_its_kind():
    options = TrainOptions(lr=1e-2, device="cpu")
    one, other = (open_trainer(options, str(training.TINY)) for _ in range(2))
    ids = torch.arange(6).view(1, 6)
    one.learner.minimise([one.model(ids).logits.square().mean()])
    other.learner.restore({name: value.clone() for name, value in one.learner.tensors().items()})
    for trainer in (one, other):
        trainer.learner.minimise([trainer.model(ids).logits.square().mean()])
    assert training.furthest(one.learner.tensors(), other.learner.tensors()) == 0.0
    with pytest.raises(ToolrollError, match="another model"):
        other.learner.restore({"weight.x": torch.zeros(2)})


def test_adapters_are_added_into_what_is_published_and_the_model_is_left_alone(tmp_path):
    pytest.importorskip("peft")
    trainer = open_trainer(TrainOptions(lr=1e-1, device="cpu", lora=2), str(training.TINY))
    assert all("lora" in name for name in trainer.learner.names)
    ids = torch.arange(6).view(1, 6)
    trainer.learner.minimise([trainer.model(ids).logits.square().mean()])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.write(tmp_path / "merged", dtype=torch.float32)
    assert training.furthest(before, dict(trainer.model.state_dict())) == 0.0
    plain = training.transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    trainer.model.eval()
    assert torch.allclose(plain(ids).logits, trainer.model(ids).logits, atol=1e-5)
    with trainer.base():
        assert torch.allclose(training.tiny()(ids).logits, trainer.model(ids).logits, atol=1e-6)
    assert not torch.allclose(plain(ids).logits, training.tiny()(ids).logits, atol=1e-3)


def test_gradient_checkpointing_changes_no_gradient():
    pytest.importorskip("peft")
    ids = torch.arange(6).view(1, 6)
    for lora in (0, 2):
        found = []
        for checkpointing in (False, True):
            options = TrainOptions(device="cpu", gradient_checkpointing=checkpointing, lora=lora)
            trainer = open_trainer(options, str(training.TINY))
            assert (
                any(getattr(part, "gradient_checkpointing", False) for part in trainer.model.modules()) == checkpointing
            )
            trainer.model(ids).logits.square().mean().backward()
            found.append({name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None})
        assert training.furthest(*found) < 1e-6


def test_targets_that_are_not_there_are_named():
    pytest.importorskip("peft")
    with pytest.raises(UsageError, match="lora-targets"):
        open_trainer(TrainOptions(device="cpu", lora=2, lora_targets="nowhere"), str(training.TINY))


def test_dropout_is_off_in_training_too():
    config = training.transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=32)
    model = training.transformers.GPT2LMHeadModel(config)
    without_dropout(model)
    model.train()
    ids = torch.arange(8).view(1, 8)
    assert torch.equal(model(ids).logits, model(ids).logits)


class TestFeed:
    """Rows as the run loop hands them over, to batches."""

    def feed(self, rows, size=4, cut=False, **settings):
        self.refused = []

        def row(number, fields):
            names = (
                "prompt_id",
                "draw",
                "distribution",
                "policy_version",
                "reward",
                "ref_logprobs",
                "prompt",
                *IMAGE_FIELDS,
            )
            view = None if "error" in fields else SimpleNamespace(**dict.fromkeys(names))
            if view is not None:
                view.__dict__.update(fields)
            raw, place = training.lines([fields]), f"rows.jsonl:{number}"
            return SimpleNamespace(
                raw=raw, view=view, failed=view is None, fields=lambda: fields, number=number, place=place
            )

        made = iter([row(i, fields) for i, fields in enumerate(rows)])
        refuse = lambda row: self.refused.append(row)  # noqa: E731
        given = Rows(made, lambda: True, lambda key: False, refuse, lambda: cut)
        given.refuse = lambda row, why: self.refused.append((row.number, why))
        settings = {"consumed": Consumed(), "demands": Demands(Objective(), 64), **settings}
        return Feed(given, size, **settings)

    def test_a_prompt_cut_in_two_is_drawn_once(self):
        batches = list(self.feed(training.rollouts(12), size=6))
        assert [(len(batch.samples), batch.draws) for batch in batches] == [(6, 2), (6, 1)]
        assert [(row["id"], len(row["advantages"])) for row in batches[0].feedback(7)] == [("q0#0#7", 4), ("q1#1#7", 2)]

    def test_what_is_consumed_is_passed_over_and_batches_stay_aligned(self):
        rows = training.rollouts(12)
        consumed = Consumed()
        consumed.add([consumed.digest(training.lines([row])) for row in rows[:4]])
        feed = self.feed(rows, consumed=Consumed(consumed.data()))
        assert [batch.groups[0][0][0] for batch in feed] == ["q1", "q2"]
        assert (feed.consumed.n_known, feed.n_new) == (4, 8)

    def test_an_input_that_was_cut_has_no_last_batch(self):
        rows = training.rollouts(6)
        assert [len(batch.samples) for batch in self.feed(rows)] == [4, 2]
        for settings in ({"cut": True}, {"on_partial": "drop"}):
            feed = self.feed(rows, **settings)
            assert [len(batch.samples) for batch in feed] == [4]
            assert feed.n_left == 2

    def test_rows_left_out_count(self):
        rows = training.rollouts(8)
        for row, version in zip(rows, ["v000003", "v000002", None, "mine", *["v000005"] * 4], strict=True):
            row["policy_version"] = version
        rows[5]["response_ids"] *= 100
        rows[6]["advantage"] = None
        rows[7] = {"error": {}, "id": "q1"}
        first, second = self.feed(rows, step=4, max_stale=1, max_tokens=60)
        assert (len(first.samples), first.n_stale) == (3, 1)
        assert (len(second.samples), second.n_long, second.n_failed) == (1, 1, 2)
        assert [number for number, _ in self.refused] == [6]

    def test_an_unreadable_row_belongs_to_no_prompt(self):
        (batch,) = self.feed([{"error": {}, "raw": "%"}, {"error": {}, "id": {"no": "id"}}, *training.rollouts(2)])
        assert (batch.n_failed, batch.draws) == (2, 1)
