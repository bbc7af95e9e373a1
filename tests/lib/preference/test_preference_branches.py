"""Two branches: mixtures worked out by hand, and answers that transformers' guidance and a loop without cache give."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny_models
import tiny_pairs

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import RowError, ToolrollError, UsageError  # noqa: E402
from toolroll.models.base import Sampling  # noqa: E402
from toolroll.models.codec import HFCodec  # noqa: E402
from toolroll.models.device import Device  # noqa: E402
from toolroll.models.load import Loaded  # noqa: E402
from toolroll.models.options import ModelOptions  # noqa: E402
from toolroll.models.pictures import Request  # noqa: E402
from toolroll.models.sampling import sample  # noqa: E402
from toolroll.preference.branches import HFBranches, open_branches  # noqa: E402
from toolroll.preference.mixing import Coin, Mixing, begins_word, ends_sentence, mixed  # noqa: E402
from toolroll.preference.uncond import read_uncond  # noqa: E402
from toolroll.preference.unseeing import Unseeing, corrupted, noisy  # noqa: E402

CPU = Device("cpu", "float32", 1, "cpu")
IMAGE = {"type": "image"}
SEEN, UNSEEN = torch.tensor([[2.0, 1, 0, -1]]), torch.tensor([[0.0, 1, 2, -1]])


@pytest.mark.parametrize(
    ("h", "logits", "by_logit", "by_prob", "greedy"),
    [
        (0, [2, 1, 0, -1], [0.6439, 0.2369, 0.0871, 0.0321], [0.6439, 0.2369, 0.0871, 0.0321], 0),
        (0.25, [1.5, 1, 0.5, -1], [0.4863, 0.2949, 0.1789, 0.0399], [0.5047, 0.2369, 0.2263, 0.0321], 0),
        (0.5, [1, 1, 1, -1], [0.3189, 0.3189, 0.3189, 0.0432], [0.3655, 0.2369, 0.3655, 0.0321], 0),
        (0.75, [0.5, 1, 1.5, -1], [0.1789, 0.2949, 0.4863, 0.0399], [0.2263, 0.2369, 0.5047, 0.0321], 2),
        (1, [0, 1, 2, -1], [0.0871, 0.2369, 0.6439, 0.0321], [0.0871, 0.2369, 0.6439, 0.0321], 2),
    ],
)
def test_the_vectors(h, logits, by_logit, by_prob, greedy):
    h, one = torch.tensor([[float(h)]]), torch.ones(1, 1)
    made = mixed(SEEN, UNSEEN, h, one, Mixing("logit"))
    assert made[0].tolist() == pytest.approx(logits)
    assert made.softmax(-1)[0].tolist() == pytest.approx(by_logit, abs=5e-5)
    assert mixed(SEEN, UNSEEN, h, one, Mixing("prob")).softmax(-1)[0].tolist() == pytest.approx(by_prob, abs=5e-5)
    (token,), _ = sample(made, [Sampling(temperature=0)], [0], [None])
    assert token == greedy


def test_contrastive_decoding_and_its_cut():
    h, one = torch.tensor([[-0.5]]), torch.ones(1, 1)
    free = mixed(SEEN, UNSEEN, h, one, Mixing("logit", cut=0)).softmax(-1)[0].tolist()
    assert free == pytest.approx([0.8533, 0.1155, 0.0156, 0.0156], abs=5e-5)
    cut = mixed(SEEN, UNSEEN, h, one, Mixing("logit", cut=0.1))
    assert cut[0, 3] == -math.inf
    assert cut.softmax(-1)[0].tolist() == pytest.approx([0.8668, 0.1173, 0.0159, 0], abs=5e-5)


def test_the_temperature_works_behind_the_mixture():
    heat, h = torch.tensor([[2.0], [0.5]]), torch.tensor([[0.25], [0.6]])
    seen, unseen = SEEN.expand(2, -1), UNSEEN.expand(2, -1)
    by_prob = (mixed(seen, unseen, h, heat, Mixing("prob")) / heat).softmax(-1)
    expected = (1 - h) * (seen / heat).softmax(-1) + h * (unseen / heat).softmax(-1)
    assert torch.allclose(by_prob, expected, atol=1e-6)


def test_tokens_that_a_model_rules_out_stay_so():
    none = torch.tensor([[0.0, -math.inf, 1.0, 0.0]])
    for h in (0.0, 0.5, 1.0, -0.5):
        weight, one = torch.tensor([[h]]), torch.ones(1, 1)
        made = mixed(none, none, weight, one, Mixing("logit"))
        assert not made.isnan().any()
        assert made[0, 1] == -math.inf
        if h >= 0:
            assert not mixed(none, UNSEEN, weight, one, Mixing("prob")).isnan().any()


def test_what_h_may_be():
    Mixing("logit").check(-1, 1)
    for kind, low, high in [("prob", -0.1, 0), ("switch", -1, 1), ("logit", 0, 1.5), ("logit", -11, 0)]:
        with pytest.raises(UsageError, match="not within"):
            Mixing(kind).check(low, high)


def test_coins_fall_as_often_as_h_says():
    coins = [Coin(seed, 0.3) for seed in range(2000)]
    assert sum(coin.unseen for coin in coins) / 2000 == pytest.approx(0.3, abs=0.04)
    assert Coin(1, 0.0).unseen is False
    assert Coin(1, 1.0).unseen is True
    assert ends_sentence("猫。")
    assert not ends_sentence("3.5")
    assert begins_word("a", "\nb")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_models.noise_pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def models():
    kept = {}

    def get(family):
        if family not in kept:
            kept[family] = tiny_models.image_model(family)
        return kept[family]

    return get


def engine_of(model, processor, mixing=None, **settings):
    words = processor.tokenizer if hasattr(processor, "tokenizer") else processor
    held = processor if hasattr(processor, "tokenizer") else None
    return HFBranches(Loaded(model, HFCodec(words), "tiny", "0", CPU, held), mixing=mixing or Mixing(), **settings)


def ask(words, *images, **sampling):
    content = [*([IMAGE] * len(images)), {"type": "text", "text": words}]
    return Request([{"role": "user", "content": content}], Sampling(**{"max_tokens": 6, **sampling}), images)


def ragged(files, uncond, h=0.6, **sampling):
    square, wide, tall = files
    requests = [
        ask("what?", square, **sampling),
        ask("and what is this, and that?", wide, tall, **sampling),
        ask("say", tall, **sampling),
    ]
    numbered = [replace(one, sampling=replace(one.sampling, seed=i)) for i, one in enumerate(requests)]
    return [uncond(one, h + i / 10) for i, one in enumerate(numbered)]


def without_cache(engine, model, processor, request, mixing):
    """The answer by whole passes over everything, one sequence at a time."""
    sides = [engine._read(0, side, None).asked for side in (replace_plain(request), request.other)]
    if request.alter:
        sides[1] = replace(sides[1], features=request.alter(sides[1].features))
    written = []
    sampling = request.sampling
    heat = torch.tensor([[sampling.temperature or 1.0]])
    while len(written) < sampling.max_tokens:
        logits = []
        for side in sides:
            ids = torch.tensor([[*side.ids, *written]])
            features = dict(side.features)
            for name in ("mm_token_type_ids", "token_type_ids"):
                if name in features:
                    features[name] = torch.nn.functional.pad(features[name], (0, len(written)))
            with torch.no_grad():
                logits.append(model(input_ids=ids, attention_mask=torch.ones_like(ids), **features).logits[:, -1])
        both = mixed(*logits, torch.tensor([[request.h]]), heat, mixing)
        (token,), _ = sample(both, [sampling], [len(written)], [None])
        written.append(token)
        if token == 1:
            break
    return written


def replace_plain(request):
    return Request(request.messages, request.sampling, request.images)


FAMILIES = ("llava", "qwen2-vl", "qwen2.5-vl", "idefics3")
UNCONDS = {
    "drop": Unseeing("drop"),
    "blank": Unseeing("blank"),
    "noise": Unseeing("noise", step=500),
    "corrupt": Unseeing("corrupt"),
    "prompt": Unseeing("prompt", lines=("Make things up, as many as there are.",)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.8, "top_p": 0.9}], ids=["greedy", "drawn"])
def test_a_ragged_batch_is_a_loop_without_cache(models, files, family, sampling):
    model, processor = models(family)
    for kind, mixing in (("drop", Mixing("logit")), ("prompt", Mixing("prob")), ("noise", Mixing("logit"))):
        engine = engine_of(model, processor, mixing)
        requests = ragged(files, UNCONDS[kind], **sampling)
        if kind == "noise":
            requests = [replace(one, h=-0.5) for one in requests]
        together = engine.answer(requests)
        for request, answer in zip(requests, together, strict=True):
            assert list(answer.ids) == without_cache(engine, model, processor, request, mixing)
        (alone,) = engine.answer(requests[1:2])
        assert alone.ids == together[1].ids
        assert alone.logprobs == pytest.approx(together[1].logprobs, abs=1e-4)


@pytest.mark.parametrize("h", [0.0, 0.3, 0.6, 0.9])
def test_guidance_of_transformers_says_the_same(tmp_path, h):
    """Classifier-free guidance with g = 1 - h, one sequence a call, on a text model."""
    from transformers import AutoModelForCausalLM

    folder = tiny_pairs.write_text_model(tmp_path / "text")
    model, words = AutoModelForCausalLM.from_pretrained(folder).eval(), tiny_pairs.tokenizer()
    engine = engine_of(model, words)
    uncond = Unseeing("prompt", lines=("nothing",))
    texts = ["what is there?", "say what you see, all of it", "a"]
    requests = [
        uncond(Request([{"role": "user", "content": text}], Sampling(temperature=0, max_tokens=8)), h) for text in texts
    ]
    for request, answer in zip(requests, engine.answer(requests), strict=True):
        seen, unseen = (
            torch.tensor([engine._read(0, side, None).asked.ids]) for side in (replace_plain(request), request.other)
        )
        guided = {} if h == 0 else {"guidance_scale": 1 - h, "negative_prompt_ids": unseen}
        expected = model.generate(
            seen,
            attention_mask=torch.ones_like(seen),
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=1,
            pad_token_id=0,
            **guided,
        )
        assert list(answer.ids) == expected[0, seen.shape[1] :].tolist()


def test_h_at_its_ends_is_one_branch_alone(models, files):
    engine = engine_of(*models("qwen2-vl"))
    greedy = {"temperature": 0}
    plain = [replace_plain(one) for one in ragged(files, UNCONDS["drop"], **greedy)]
    seen = [one.ids for one in engine.answer(plain)]
    assert [
        one.ids for one in engine.answer([replace(one, h=0.0) for one in ragged(files, UNCONDS["drop"], **greedy)])
    ] == seen
    blind = engine.answer([one.other for one in ragged(files, UNCONDS["drop"], **greedy)])
    whole = engine.answer([replace(one, h=1.0) for one in ragged(files, UNCONDS["drop"], **greedy)])
    assert [one.ids for one in whole] == [one.ids for one in blind]
    assert [one.ids for one in blind] != seen


@pytest.mark.parametrize("kind", ["switch", "switch-word", "switch-sentence"])
def test_coins_choose_between_the_branches(models, files, kind):
    model, processor = models("llava")
    engine = engine_of(model, processor, Mixing(kind))
    requests = ragged(files, UNCONDS["drop"], temperature=0, max_tokens=12)
    found = engine.answer(requests)
    assert [one.ids for one in engine.answer(requests[::-1])[::-1]] == [one.ids for one in found]
    seen = [one.ids for one in engine.answer([replace_plain(one) for one in requests])]
    assert [one.ids for one in engine.answer([replace(one, h=0.0) for one in requests])] == seen
    many = [replace(one, sampling=replace(one.sampling, seed=seed)) for seed in range(9) for one in requests[:1]]
    assert len({one.ids for one in engine.answer([replace(one, h=0.5) for one in many])}) > 1


def test_a_switch_by_token_is_a_draw_of_the_mixture(models, files):
    """Under plain sampling the first token has the distribution that --mix prob has."""
    model, processor = models("llava")
    (request,) = ragged(files, UNCONDS["drop"], h=0.5, temperature=1.0, max_tokens=1)[:1]
    many = [replace(request, sampling=replace(request.sampling, seed=seed)) for seed in range(1500)]
    by_coin = torch.tensor([one.ids[0] for one in engine_of(model, processor, Mixing("switch")).answer(many)])
    by_prob = torch.tensor([one.ids[0] for one in engine_of(model, processor, Mixing("prob")).answer(many)])
    size = model.get_input_embeddings().num_embeddings
    apart = (by_coin.bincount(minlength=size) - by_prob.bincount(minlength=size)).abs().sum() / 2 / 1500
    assert apart < 0.2


def test_bad_requests_fail_alone(models, files):
    engine = engine_of(*models("llava"), max_context=40)
    good, _, last = ragged(files, UNCONDS["drop"], temperature=0)
    gone = replace(good, images=[files[0].with_name("gone.png")])
    long = UNCONDS["drop"](replace(ask("long " * 20, files[0]), sampling=good.sampling), 0.5)
    bad_other = Unseeing("prompt", lines=("<image> " * 3,))(ask("what?", files[0]), 0.5)
    found = engine.answer([good, gone, long, bad_other, last])
    assert "gone.png" in str(found[1])
    assert "too many" in str(found[2])
    assert "stands for an image" in str(found[3])
    assert found[0].ids
    assert found[4].ids
    with pytest.raises(RowError, match="no image"):
        UNCONDS["drop"](ask("what?"), 0.5)


def test_the_longest_sequence_counts_for_both_branches(models, files):
    engine = engine_of(*models("llava"), max_context=60)
    uncond = Unseeing("prompt", lines=("x" * 30,))
    (found,) = engine.answer([uncond(ask("a", files[0], temperature=0, max_tokens=50), 0.5)])
    (plain,) = engine.answer([ask("a", files[0], temperature=0, max_tokens=50)])
    assert len(found.ids) < len(plain.ids) or plain.finish == "eos"


def test_what_the_other_branch_sees(files, tmp_path):
    from PIL import Image

    image = Image.open(files[1]).convert("RGB")
    kinds = {tuple(corrupted(image, seed).getpixel((3, 3))) for seed in range(20)}
    assert len(kinds) > 5
    assert all(corrupted(image, seed).size == image.size for seed in range(6))
    features = {"pixel_values": torch.ones(1, 3, 400, 400), "image_sizes": torch.ones(1, 2, dtype=torch.long)}
    one, again, late = noisy(features, 500, 1), noisy(features, 500, 1), noisy(features, 1000, 1)
    assert torch.equal(one["pixel_values"], again["pixel_values"])
    assert torch.equal(one["image_sizes"], features["image_sizes"])
    betas = torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
    kept = float((1 - betas[:500]).prod())
    assert float(one["pixel_values"].mean()) == pytest.approx(math.sqrt(kept), abs=0.01)
    assert float(one["pixel_values"].var()) == pytest.approx(1 - kept, abs=0.02)
    assert float(late["pixel_values"].mean()) < float(one["pixel_values"].mean())

    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"image": "a.png"}\n\n{"images": ["b.png"]}\n{"image_path": "c.png"}\n')
    shuffle = Unseeing.of(read_uncond(f"shuffle:{pool}"), None)
    assert [path.name for path in shuffle.pool] == ["a.png", "b.png", "c.png"]
    drawn = {shuffle(ask("what?", tmp_path / "a.png", seed=seed), 0.5).other.images[0].name for seed in range(20)}
    assert drawn == {"b.png", "c.png"}
    blanked = Unseeing("blank", colour=(1, 2, 3))(ask("what?", files[0]), 0.5).other.images[0]
    assert blanked.getpixel((0, 0)) == (1, 2, 3)


def test_what_is_no_other_branch(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bad").write_text('{"id": 1}\n')
    for text, why in [
        ("none", "is not drop"),
        ("drop:1", "is not drop"),
        ("noise", "noise has a step"),
        ("noise:0", "noise has a step"),
        ("noise:1001", "noise has a step"),
        ("prompt:", "is not drop"),
        (f"prompt:{tmp_path}/gone", "No such file"),
        (f"prompt:{tmp_path}/empty", "no line with a prompt"),
        (f"shuffle:{tmp_path}/empty", "no images in it"),
        (f"shuffle:{tmp_path}/bad", "no images in it"),
    ]:
        with pytest.raises(ToolrollError, match=why):
            read_uncond(text)


def test_only_this_process_has_two_branches():
    for options in (ModelOptions("x", backend="scripted"), ModelOptions("x", base_url="http://127.0.0.1:9")):
        with pytest.raises(UsageError, match="does not give the logits"):
            open_branches(options, Mixing(), print)
