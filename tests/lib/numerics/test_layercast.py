"""LayerCast against plain fp32 on the same weights, for many families of models."""

from __future__ import annotations

import pytest
import tiny_models
import torch

from toolroll.errors import ToolrollError
from toolroll.models.base import Sampling
from toolroll.models.device import Device
from toolroll.models.padded import Asked, Batches
from toolroll.numerics import modules
from toolroll.numerics.load import Precision, load

CPU = Device("cpu", "float32", 2, "cpu")
FAMILIES = [*tiny_models.text_models()]
PROMPTS = [[5, 9, 200], [17, 33, 121, 8, 64, 99, 250, 11, 12, 13, 14], [40], [70, 71, 72, 73, 74, 75]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes the folder of a tiny model, once for each family and format."""
    made = {}

    def make(family, dtype="bfloat16"):
        if (family, dtype) not in made:
            made[family, dtype] = tiny_models.write_text(tmp_path_factory.mktemp("m"), family, dtype)
        return made[family, dtype]

    return make


def asked(prompts=PROMPTS, tokens=8):
    return [Asked(ids, Sampling(temperature=0, max_tokens=tokens)) for ids in prompts]


def answers(ready, prompts=None, kv=None, at_a_time=4):
    batches = Batches(ready.loaded.model, frozenset([1]), most=256, kv=kv, extra=ready.extra)
    prompts = prompts or asked()
    return [one for i in range(0, len(prompts), at_a_time) for one in batches.write(prompts[i : i + at_a_time])]


def told(written):
    return [(one.ids, one.logprobs, one.top_ids, one.top_logprobs) for one in written]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_layercast_is_fp32_on_the_same_weights_to_the_bit(folder, family, dtype):
    name = folder(family, dtype)
    cast = load(name, CPU, Precision("layercast", how="naive"))
    full = load(name, CPU, Precision("fp32"))
    assert told(answers(cast)) == told(answers(full))
    assert cast.kept == {"bfloat16": "bf16", "float16": "fp16"}[dtype]
    linear = [one for one in cast.loaded.model.modules() if isinstance(one, modules.UpcastLinear)]
    plain = [one for one in full.loaded.model.modules() if modules._is_linear(one)]
    assert len(linear) == len(plain) > 0
    assert not any(modules._is_linear(one) for one in cast.loaded.model.modules())
    assert all(parameter.dtype == torch.float32 for parameter in cast.loaded.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["blocked", "fused"])
def test_other_orders_of_summation_agree_to_rounding(folder, family, how):
    name = folder(family)
    exact = answers(load(name, CPU, Precision("fp32")))
    found = answers(load(name, CPU, Precision("layercast", how=how)))
    assert [one.ids for one in found] == [one.ids for one in exact]
    for one, other in zip(found, exact, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_shrinking_change_no_answer(folder, family):
    """fp32: each prompt alone, and all of them padded on the left, of which some end sooner."""
    ready = load(folder(family), CPU, Precision("fp32"))
    prompts = [
        Asked(one.ids, Sampling(temperature=0, max_tokens=tokens))
        for one, tokens in zip(asked(), (3, 12, 7, 12), strict=True)
    ]
    together, alone = answers(ready, prompts), answers(ready, prompts, at_a_time=1)
    assert [one.ids for one in together] == [one.ids for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_transformers_generate(folder, family):
    ready = load(folder(family), CPU, Precision("fp32"))
    model = ready.loaded.model
    found = answers(ready, asked(tokens=6))
    for one, prompt in zip(found, PROMPTS, strict=True):
        whole = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)).long(),
            do_sample=False,
            max_new_tokens=6,
            pad_token_id=0,
            eos_token_id=1,
        )
        assert one.ids == whole[0, len(prompt) :].tolist()


def test_tied_tensors_stay_one(folder):
    model = load(folder("llama-tied"), CPU, Precision("layercast")).loaded.model
    assert model.lm_head.stored.data_ptr() == model.model.embed_tokens.stored.data_ptr()
    assert model.lm_head.stored.dtype == torch.bfloat16
    assert model.model.embed_tokens(torch.tensor([3])).dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen2", "gpt2"])
def test_bytes_of_weights(folder, family):
    """Linear layers and tables take 2 bytes a weight, the rest 4; tied ones count once."""
    name = folder(family)
    plain = load(name, CPU, Precision("fp32"))
    model = plain.loaded.model
    small = {
        one.weight.data_ptr(): one
        for one in model.modules()
        if modules._is_linear(one) or isinstance(one, torch.nn.Embedding)
    }
    halves = sum(p.numel() for one in small.values() for p in one.parameters())
    every = sum(p.numel() for p in {p.data_ptr(): p for p in model.parameters()}.values())
    assert plain.weight_bytes == 4 * every
    assert load(name, CPU, Precision("layercast")).weight_bytes == 2 * halves + 4 * (every - halves)
    assert load(name, CPU, Precision("bf16")).weight_bytes == 2 * every


def test_a_float32_checkpoint_is_rounded_with_a_warning_or_kept(folder):
    name, warned = folder("qwen2", "float32"), []
    rounded = load(name, CPU, Precision("layercast", how="naive"), warn=warned.append)
    assert warned == [
        f"{name}: a float32 checkpoint kept as bfloat16 loses 16 bits of precision; --keep fp32 would lose none"
    ]
    kept = load(name, CPU, Precision("layercast", keep="fp32", how="naive"), warn=warned.append)
    assert len(warned) == 1
    plain = load(name, CPU, Precision("fp32"), warn=warned.append)
    assert len(warned) == 1
    assert told(answers(kept)) == told(answers(plain))
    assert [one.logprobs for one in answers(rounded)] != [one.logprobs for one in answers(plain)]
    table = rounded.loaded.model.model.embed_tokens
    assert isinstance(table, torch.nn.Embedding)  # its rows are no 16-bit numbers, and no product needs them so


@pytest.mark.parametrize(
    ("dtype", "precision", "keep", "what"),
    [
        ("float16", "bf16", None, "loses 3 bits"),
        ("float16", "layercast", "bf16", "loses 3 bits of precision; --keep fp32"),
        ("bfloat16", "fp16", None, "loses range"),
        ("float32", "fp16", None, "loses 13 bits"),
        ("bfloat16", "fp32", None, None),
        ("float16", "layercast", None, None),
    ],
)
def test_lost_bits_are_told(folder, dtype, precision, keep, what):
    warned = []
    load(folder("llama", dtype), CPU, Precision(precision, keep), warn=warned.append)
    assert (what is None and not warned) or (len(warned) == 1 and what in warned[0])


def test_a_quantized_checkpoint_is_refused(folder, tmp_path):
    import json
    import shutil
    from pathlib import Path

    shutil.copytree(folder("llama"), tmp_path / "q")
    config = json.loads(Path(tmp_path, "q", "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    Path(tmp_path, "q", "config.json").write_text(json.dumps(config))
    with pytest.raises(ToolrollError, match="quantized already"):
        load(str(tmp_path / "q"), CPU, Precision("layercast"))


def test_weights_beyond_float16_are_refused(folder, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder("llama"))
    model.lm_head.weight.data[0, 0] = 1e6
    model.save_pretrained(tmp_path / "big")
    import tiny_pairs

    tiny_pairs.tokenizer().save_pretrained(tmp_path / "big")
    with pytest.raises(ToolrollError, match="beyond the range of float16"):
        load(str(tmp_path / "big"), CPU, Precision("fp16"))


@pytest.mark.parametrize("precision", ["bf16", "fp32", "layercast"])
def test_simulated_tensor_parallelism(folder, precision):
    """The sum of partial products: exactly that of slices of the matrix, and near the whole product."""
    name = folder("llama")
    whole = load(name, CPU, Precision(precision, how="naive")).loaded.model
    cut = load(name, CPU, Precision(precision, how="naive", tp=2)).loaded.model
    layer, sharded = whole.model.layers[0].mlp.down_proj, cut.model.layers[0].mlp.down_proj
    assert isinstance(sharded, modules.ShardedLinear)
    assert isinstance(cut.model.layers[0].self_attn.o_proj, modules.ShardedLinear)
    x = torch.randn(5, 48).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    weight = layer.weight
    by_hand = torch.nn.functional.linear(x[:, :24], weight[:, :24].contiguous()) + torch.nn.functional.linear(
        x[:, 24:], weight[:, 24:].contiguous()
    )
    assert torch.equal(sharded(x), by_hand)
    assert torch.allclose(sharded(x).float(), layer(x).float(), atol=0.05 if precision == "bf16" else 1e-5)


def test_a_bias_is_added_once_under_tensor_parallelism(folder):
    whole, cut = (load(folder("gpt2"), CPU, Precision("layercast", tp=tp)).loaded.model for tp in (1, 4))
    x = torch.randn(3, 128)
    one, four = whole.transformer.h[0].mlp.c_proj, cut.transformer.h[0].mlp.c_proj
    assert one.stored_bias.abs().max() > 0.01
    assert torch.allclose(four(x), one(x), atol=1e-5)


def test_layers_that_cannot_be_cut_are_refused(folder):
    with pytest.raises(ToolrollError, match="32 inputs cannot be cut into 3"):
        load(folder("llama"), CPU, Precision("fp32", tp=3))


def test_a_smaller_cache_is_another_answer_and_half_the_bytes(folder):
    ready = load(folder("llama"), CPU, Precision("layercast"))
    full, half = answers(ready), answers(ready, kv="bf16")
    assert [one.kv_bytes for one in half] == [one.kv_bytes // 2 for one in full]
    assert [one.logprobs for one in half] != [one.logprobs for one in full]
    assert told(answers(ready, kv="fp32")) == told(full)
    # 2 layers, keys and values of 2 heads of 8, 4 bytes; the longest prompt has 11 tokens, and 7 of its answer are read
    assert full[1].kv_bytes == 2 * 2 * 2 * 8 * 4 * (11 + 7)


def test_the_most_probable_tokens_are_those_of_the_whole_distribution(folder):
    ready = load(folder("qwen2"), CPU, Precision("fp32"))
    for prompt, one in zip(PROMPTS, answers(ready), strict=True):
        with torch.inference_mode():
            logits = ready.loaded.model(torch.tensor([[*prompt, *one.ids[:-1]]])).logits[0, len(prompt) - 1 :]
        best = logits.log_softmax(-1).topk(5)
        assert one.top_ids == best.indices.tolist()
        assert one.logprobs == pytest.approx(best.values[:, 0].tolist(), abs=5e-5)
        assert all(len(ids) == 5 and ids[0] == token for ids, token in zip(one.top_ids, one.ids, strict=True))


def test_a_row_without_sound_logits_fails_alone(folder):
    ready = load(folder("llama"), CPU, Precision("fp32"))
    ready.loaded.model.model.embed_tokens.weight.data[40] = float("nan")
    found = answers(ready)
    assert [bool(one.failed) for one in found] == [False, False, True, False]
    assert found[2].ids == []
    sound = answers(load(folder("llama"), CPU, Precision("fp32")))
    assert [found[i].ids for i in (0, 1, 3)] == [sound[i].ids for i in (0, 1, 3)]


@pytest.mark.parametrize("family", FAMILIES)
def test_alone_is_the_same_attention(folder, family):
    name = folder(family)
    usual = answers(load(name, CPU, Precision("fp32")))
    alone = answers(load(name, CPU, Precision("fp32", attention="alone")))
    assert [one.ids for one in alone] == [one.ids for one in usual]
    for one, other in zip(alone, usual, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=5e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mixtral"])  # experts are no layers
def test_fused_and_alone_an_answer_does_not_depend_on_its_batch(folder, family):
    """To the bit, with prompts of any lengths, answers that end at other times, and other threads."""
    ready = load(folder(family), CPU, Precision("layercast", how="fused", attention="alone"))
    lengths = (3, 12, 7, 12, 9)
    prompts = [
        Asked(ids, Sampling(temperature=0, max_tokens=tokens))
        for ids, tokens in zip([*PROMPTS, list(range(20, 60))], lengths, strict=True)
    ]
    single = told(answers(ready, prompts, at_a_time=1))
    threads = torch.get_num_threads()
    try:
        for count, at_a_time in ((1, 2), (1, 5), (2, 3)):
            torch.set_num_threads(count)
            assert told(answers(ready, prompts, at_a_time=at_a_time)) == single
    finally:
        torch.set_num_threads(threads)


def test_with_padded_attention_it_does(folder):
    """The check above can fail."""
    ready = load(folder("llama"), CPU, Precision("layercast", how="fused"))
    single, together = (told(answers(ready, at_a_time=count)) for count in (1, 4))
    assert single != together
