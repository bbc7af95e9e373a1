"""TRL is the judge: its real trainers and our losses, on the same weights and the same tokens, agree."""

from __future__ import annotations

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="trl, the judge of the losses, is a development dependency")
pytest.importorskip("datasets", reason="TRL's trainers read data sets of this package")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
    import trl
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

import tiny_pairs  # noqa: E402
from tiny_pairs import tokenizer  # noqa: E402

from toolroll.train import losses, pairs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL, datasets and accelerate warn of their own affairs

QUIET = {"report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no"}


def tiny(seed: int, vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,  # far from uniform predictions, and the two models far from each other
    )
    return LlamaForCausalLM(config).double().eval()


def sums(model, encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """Our log-probabilities of the chosen and rejected answers, each sequence by itself, without any padding."""
    found = []
    for answer in ("chosen", "rejected"):
        for pair in encoded:
            completion = torch.tensor([getattr(pair, answer)])
            logits = model(torch.tensor([[*pair.prompt, *getattr(pair, answer)]])).logits
            logits = logits[:, len(pair.prompt) - 1 : -1]
            found.append(losses.token_logprobs(logits, completion).sum())
    chosen, rejected = torch.stack(found).chunk(2)
    return chosen, rejected


ROWS = [
    {"prompt": "2+2=", "chosen": "4", "rejected": "five, or so"},
    {"prompt": "Say hi. ", "chosen": "Hi there, you.", "rejected": "no"},
    {"prompt": "x", "chosen": "ab", "rejected": "ba"},
]
TALKS = [
    {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
    for row in ROWS
]


def dpo_judge(tmp_path, model, reference, rows, **settings):
    args = trl.DPOConfig(
        output_dir=str(tmp_path), max_length=None, per_device_train_batch_size=len(rows), **QUIET, **settings
    )
    return trl.DPOTrainer(
        model, ref_model=reference, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer()
    )


@pytest.mark.parametrize("rows", [ROWS, TALKS], ids=["text", "messages"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"loss_type": ["sigmoid"], "beta": 0.1}, {"loss": "sigmoid", "beta": 0.1}),
        ({"loss_type": ["sigmoid"], "beta": 0.5}, {"loss": "sigmoid", "beta": 0.5}),
        ({"loss_type": ["ipo"], "beta": 0.1}, {"loss": "ipo", "beta": 0.1}),
    ],
    ids=["sigmoid", "sigmoid-beta", "ipo"],
)
def test_dpo_and_its_gradient(tmp_path, rows, theirs, ours):
    words = tokenizer()
    model, reference = tiny(1, len(words)), tiny(2, len(words))
    judge = dpo_judge(tmp_path, model, reference, rows, **theirs)
    batch = next(iter(judge.get_train_dataloader()))
    judge.model.eval()
    expected = judge.compute_loss(judge.model, batch)
    encoder = pairs.Encoder(words)
    encoded = [encoder(**row) for row in rows]
    assert as_sets(batch["input_ids"], batch["attention_mask"]) == {
        (*pair.prompt, *answer) for pair in encoded for answer in (pair.chosen, pair.rejected)
    }
    current = sums(model, encoded)
    with torch.no_grad():
        before = sums(reference, encoded)
    lengths = torch.tensor([[len(p.chosen) for p in encoded], [len(p.rejected) for p in encoded]])
    found, stats = losses.dpo_loss(*pairs.measured(current, before, lengths, ours["loss"]), **ours)
    assert float(found) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
    theirs_found = judge._metrics["eval"]
    if ours["loss"] == "sigmoid":
        for name, metric in (("rewards_chosen", "rewards/chosen"), ("rewards_rejected", "rewards/rejected")):
            assert float(stats[name]) / len(rows) == pytest.approx(theirs_found[metric][0], rel=1e-5, abs=1e-5)
        assert float(stats["accuracy"]) / len(rows) == pytest.approx(theirs_found["rewards/accuracies"][0])
    same_gradients(model, expected, found)


def test_dpo_with_images(tmp_path):
    """Its vision collator and its loss, on a tiny LLaVA: the same tokens, the same images, the same loss."""
    from PIL import Image

    folder = tiny_pairs.write_image_model(tmp_path / "llava")
    scorer = pairs.PairScorer.load(str(folder), "cpu")
    rows, encoded = [], []
    for talk, colour in zip(TALKS, ((250, 0, 0), (0, 250, 0), (0, 0, 250)), strict=True):
        path = tiny_pairs.picture(tmp_path / f"{colour.index(250)}.png", colour)
        rows.append({**talk, "images": [Image.open(path).convert("RGB")]})
        encoded.append(scorer.encoder(**talk, images=[path.name], folder=tmp_path))
    args = trl.DPOConfig(
        output_dir=str(tmp_path), max_length=None, per_device_train_batch_size=3, remove_unused_columns=False, **QUIET
    )
    judge = trl.DPOTrainer(
        copy.deepcopy(scorer.model),
        ref_model=copy.deepcopy(scorer.model),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=scorer.encoder.processor,
    )
    with torch.no_grad():
        for weight in judge.model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    judge.model.eval()
    batch = judge.data_collator(rows)
    assert as_sets(batch["input_ids"], batch["attention_mask"]) == {
        (*pair.prompt, *answer) for pair in encoded for answer in (pair.chosen, pair.rejected)
    }
    expected = judge.compute_loss(judge.model, batch).detach()
    current, before = (
        torch.tensor(pairs.PairScorer(model, scorer.encoder)(encoded, 4096)).T for model in (judge.model, scorer.model)
    )
    found, stats = losses.dpo_loss(*current, *before)
    assert abs(float(stats["margin"])) > 0.01
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def as_sets(ids, mask) -> set[tuple[int, ...]]:
    return {tuple(row[own.bool()].tolist()) for row, own in zip(ids, mask, strict=True)}


def same_gradients(model, expected, found) -> None:
    """Both losses, of one model, pull its weights the same way."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    judged = torch.autograd.grad(expected, weights, retain_graph=True)
    own = torch.autograd.grad(found, weights)
    assert any(gradient.abs().max() > 1e-3 for gradient in own)
    for left, right in zip(judged, own, strict=True):
        assert torch.allclose(left, right, rtol=1e-4, atol=1e-5)


def test_label_smoothing_is_that_of_its_aot_loss(tmp_path):
    """TRL smooths labels in its AOT losses; for a single pair, which there is nothing to sort in, those are DPO's."""
    words = tokenizer()
    model, reference = tiny(1, len(words)), tiny(2, len(words))
    judge = dpo_judge(tmp_path, model, reference, ROWS[:1], loss_type=["aot"], label_smoothing=0.2)
    judge.model.eval()
    expected = judge.compute_loss(judge.model, next(iter(judge.get_train_dataloader())))
    encoded = [pairs.Encoder(words)(**ROWS[0])]
    with torch.no_grad():
        tensors = (*sums(model, encoded), *sums(reference, encoded))
    found, _ = losses.dpo_loss(*tensors, label_smoothing=0.2)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.fixture(scope="module")
def rollouts():
    """Prompts of different lengths (padded on the left, as TRL does), answers (on the right), and who wrote what."""
    torch.manual_seed(0)
    vocabulary = len(tokenizer())
    prompt_mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]])
    completion_mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    tool_mask = torch.tensor([[1, 0, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
    return {
        "prompt_ids": torch.randint(1, vocabulary, (4, 3)) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(1, vocabulary, (4, 5)) * completion_mask,
        "completion_mask": completion_mask,
        "tool_mask": tool_mask,
        "advantages": torch.tensor([1.0, -0.5, -2.0, 0.25]),
    }


def our_logps(model, inputs, temperature):
    """[4, 5], each sequence by itself, without any padding."""
    longest = inputs["completion_ids"].shape[1]
    rows = []
    for i in range(len(inputs["completion_ids"])):
        prompt = inputs["prompt_ids"][i][inputs["prompt_mask"][i].bool()]
        answer = inputs["completion_ids"][i][inputs["completion_mask"][i].bool()]
        logits = model(torch.cat([prompt, answer])[None]).logits[:, len(prompt) - 1 : -1]
        logp = losses.token_logprobs(logits, answer[None], temperature)[0]
        rows.append(torch.cat([logp, logp.new_zeros(longest - len(logp))]))
    return torch.stack(rows)


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    ("loss_type", "norm", "constant", "temperature"),
    [("grpo", "sequence", None, 1.0), ("bnpo", "token", None, 0.7), ("dr_grpo", "constant", 9.0, 1.0)],
)
def test_the_policy_gradient_and_its_gradient(tmp_path, rollouts, loss_type, norm, constant, temperature, beta):
    words = tokenizer()
    model = tiny(1, len(words))
    args = trl.GRPOConfig(
        output_dir=str(tmp_path),
        loss_type=loss_type,
        beta=0.0,  # it would load a reference model by name; the batch brings its log-probabilities
        use_bias_correction_kl=False,
        epsilon=0.2,
        epsilon_high=0.28,
        temperature=temperature,
        max_completion_length=9,
        per_device_train_batch_size=4,
        num_generations=4,
        **QUIET,
    )
    judge = trl.GRPOTrainer(
        model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * 4),
        processing_class=words,
    )
    judge.beta = beta
    judge.model.eval()
    with torch.no_grad():
        current = our_logps(model, rollouts, temperature)
        torch.manual_seed(3)
        old = current + 0.4 * torch.randn_like(current)  # some ratios within the clip, some beyond it on either side
        ref = current + 0.3 * torch.randn_like(current) if beta else None
    inputs = rollouts | {"old_per_token_logps": old} | ({} if ref is None else {"ref_per_token_logps": ref})
    expected = judge._compute_loss(judge.model, inputs)

    logp = our_logps(model, rollouts, temperature)
    mask = (rollouts["completion_mask"] * rollouts["tool_mask"]).float()
    reduction = {"norm": norm, "constant": constant}
    found, stats = losses.policy_loss(
        logp, old, rollouts["advantages"], mask, clip_low=0.2, clip_high=0.28, **reduction
    )
    if ref is not None:
        found = found + beta * losses.reduced(losses.kl(logp, ref, "k3"), mask, norm, constant)
    assert 0 < float(stats["clipped"]) < float(stats["tokens"])
    assert float(found) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
    same_gradients(model, expected, found)
