"""Updates on pairs: their order, their figures, and that parts make the gradient of the whole."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
    import transformers  # noqa: F401

import tiny_pairs  # noqa: E402

from toolroll.errors import ToolrollError, UsageError  # noqa: E402
from toolroll.train import dpo, losses  # noqa: E402
from toolroll.train.options import TrainOptions  # noqa: E402
from toolroll.train.pairs import Encoder  # noqa: E402
from toolroll.train.preference import PRESETS, EpochTraining, Preference, with_preset  # noqa: E402
from toolroll.train.setup import open_trainer  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")  # tiny tensors: more threads only wait for each other


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_pairs.write_text_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def pairs():
    encoder = Encoder(tiny_pairs.tokenizer())
    return [encoder(f"Say {i}.", "yes " * (1 + i % 3), "no" * (1 + i % 4), weight=1 + i % 2) for i in range(7)]


def opened(model, **settings):
    return open_trainer(TrainOptions(**{"lr": 1e-2, "device": "cpu", **settings}), model)


def test_an_epoch_has_every_pair_once_and_each_its_own_order():
    first, second = ([dpo.batch_of(3 * epoch + i, 7, 3, 5) for i in (1, 2, 3)] for epoch in (0, 1))
    for epoch in (first, second):
        assert [len(batch) for batch in epoch] == [3, 3, 1]
        assert sorted(index for batch in epoch for index in batch) == list(range(7))
    assert first != second
    assert first != [dpo.batch_of(i, 7, 3, 6) for i in (1, 2, 3)]


def test_an_update_is_the_gradient_of_the_plain_loss(model, pairs):
    """With the reference at the policy the gradient is -beta / 2 of the weighted margin's; the step is AdamW's."""
    trainer = opened(model, max_grad_norm=0.0)
    references = dpo.references_of(trainer, pairs, None, 4096, print)
    plain = opened(model)
    answers = [(plain_sum(plain.model, p, p.chosen), plain_sum(plain.model, p, p.rejected), p.weight) for p in pairs]
    expected, _ = losses.dpo_loss(
        *(torch.stack(column) for column in list(zip(*answers, strict=True))[:2]),
        *torch.tensor(references).T,
        beta=0.3,
        weight=torch.tensor([weight for *_, weight in answers]),
    )
    gradient = torch.autograd.grad(expected, plain.learner.parameters)
    expected = expected.detach()
    norm = torch.stack([part.norm() for part in gradient]).norm()
    update = dpo.PairUpdate(trainer, Preference(beta=0.3, batch_rows=7, micro_tokens=60), pairs, references)
    row = update.run(1)
    assert row["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert (row["margin"], row["pairs"], row["epoch"]) == (pytest.approx(0, abs=1e-5), 7, 1)


def plain_sum(model, pair, answer):
    logits = model(torch.tensor([pair.prompt + answer])).logits[:, len(pair.prompt) - 1 : -1]
    return losses.token_logprobs(logits, torch.tensor([answer])).sum()


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_training_tells_the_answers_apart_however_it_is_cut_into_parts(model, pairs, loss):
    curves = []
    for micro_tokens in (40, 4096):
        trainer = opened(model)
        references = dpo.references_of(trainer, pairs, None, micro_tokens, print)
        settings = Preference(loss=loss, batch_rows=3, epochs=2, micro_tokens=micro_tokens)
        update = dpo.PairUpdate(trainer, settings, pairs, references)
        assert update.steps == 6
        curves.append([update.run(step) for step in range(1, 7)])
    for one, other in zip(*curves, strict=True):
        assert one == {name: pytest.approx(value, rel=1e-3, abs=1e-4) for name, value in other.items()}
    assert curves[0][-1]["accuracy"] == 1
    assert curves[0][-1]["margin"] > curves[0][0]["margin"]


def test_a_weight_of_nothing_teaches_nothing(model):
    pair = Encoder(tiny_pairs.tokenizer())("x", "a", "b", weight=0)
    trainer = opened(model)
    row = dpo.PairUpdate(trainer, Preference(), [pair], [(-9.0, -3.0)]).run(1)
    assert (row["loss"], row["grad_norm"]) == (0, 0)


def test_another_model_can_be_the_reference(model, pairs, tmp_path):
    other = tiny_pairs.write_text_model(tmp_path / "other", seed=5)
    trainer = opened(model)
    own = dpo.references_of(trainer, pairs, None, 4096, print)
    theirs = dpo.references_of(trainer, pairs, str(other), 4096, print)
    assert theirs == [pytest.approx(known) for known in dpo.references_of(opened(str(other)), pairs, None, 99, print)]
    assert own[0] != pytest.approx(theirs[0], abs=0.1)


def test_reference_log_probabilities_are_kept_for_the_same_pairs_only(tmp_path):
    path = tmp_path / "reference.safetensors"
    assert dpo.load_references(path, "key") is None
    dpo.save_references(path, "key", [(-1.5, -2.5)])
    assert dpo.load_references(path, "key") == [(-1.5, -2.5)]
    assert dpo.load_references(path, "other") is None
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ToolrollError, match="is damaged"):
        dpo.load_references(path, "key")


def test_the_digest_knows_order_ids_and_weights(pairs):
    assert dpo.digest_of(pairs) == dpo.digest_of(list(pairs))
    assert dpo.digest_of(pairs) != dpo.digest_of(pairs[::-1])


def test_presets_are_defaults():
    found = with_preset("csr", EpochTraining(lr=3.0), lambda name: name == "lr")
    assert (found.lr, found.lora, found.lora_alpha, found.schedule) == (3.0, 128, 256.0, "cosine")
    assert with_preset(None, Preference(), bool) == Preference()
    assert with_preset("rlaif-v", Preference(), lambda _: False).epochs == 10
    known = {*Preference.__dataclass_fields__, *TrainOptions.__dataclass_fields__}
    assert all(set(preset) <= known for preset in PRESETS.values())


def test_a_schedule_is_made_for_the_updates_there_are():
    whole = EpochTraining(lr=1.0, schedule="linear").whole(4)
    assert [whole.rate(step) for step in (1, 2, 4, 5)] == [1.0, 0.75, 0.25, 0.0]
    assert EpochTraining(lr=1.0, schedule="linear", total_steps=8).whole(4).rate(5) == 0.5
    with pytest.raises(UsageError):
        EpochTraining(betas=(1.5, 0.9))
    with pytest.raises(UsageError):
        Preference(loss="ipo", label_smoothing=0.1)
