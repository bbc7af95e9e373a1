"""LoRA adapters for readers: merged into their base, told apart from it, and told in one line when they are broken."""

import json
import sys
import warnings

import pytest
import tiny_models
import torch
import transformers
from peft import LoraConfig, get_peft_model

from toolroll.errors import ToolrollError, UsageError
from toolroll.models.base import Generate, Sampling
from toolroll.models.device import Device
from toolroll.models.episodes import complete
from toolroll.models.load import load_causal_lm
from toolroll.models.open import open_text_engine
from toolroll.models.policy import current_policy
from toolroll.models.text import HFEngine

CPU = Device("cpu", "float32", 1, "cpu")
IDS = (5, 70, 200, 9, 31)


def save_adapter(base, folder, seed):
    """An adapter whose weights are all drawn at random, and the model that peft makes of it, unmerged."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn each other
        model = get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn_like(weight) / 4)
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture
def base(tmp_path):
    tiny_models.write_byte_llama(tmp_path / "base")
    return tmp_path / "base"


def test_an_adapter_is_added_into_its_base(base, tmp_path):
    expected = save_adapter(base, tmp_path / "one", seed=1)
    loaded = load_causal_lm(str(tmp_path / "one"), CPU)
    with torch.inference_mode():
        ids = torch.tensor([IDS])
        logits = loaded.model(ids).logits
        assert torch.allclose(logits, expected(ids).logits, atol=1e-4)
        assert not torch.allclose(logits, load_causal_lm(str(base), CPU).model(ids).logits, atol=1e-2)
    assert loaded.name == "one"
    assert loaded.codec.decode(loaded.codec.encode("that")) == "that"  # the tokenizer is the base's
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())


def test_weights_are_told_apart(base, tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        save_adapter(base, tmp_path / name, seed)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    found = [load_causal_lm(str(tmp_path / name), CPU).weights_id for name in ("base", "one", "two", "one")]
    assert len(set(found)) == 3
    assert found[1] == found[3]
    (tmp_path / "one" / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 16}))
    assert load_causal_lm(str(tmp_path / "one"), CPU).weights_id not in found


def test_an_engine_takes_up_an_adapter_and_survives_one_that_is_broken(base, tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        save_adapter(base, tmp_path / name, seed)
    (tmp_path / "two" / "adapter_model.safetensors").write_bytes(b"cut short")

    def written():
        (answer,) = complete(engine, [Generate("", IDS, Sampling(temperature=0, max_tokens=6))])
        return answer.logprobs

    engine = HFEngine(load_causal_lm(str(base), CPU))
    plain = written()
    engine.reload(tmp_path / "one")
    adapted = written()
    assert engine.name == "hf:one"
    assert adapted != plain
    identity = engine.weights_id
    with pytest.raises(ToolrollError, match="two: cannot be loaded"):
        engine.reload(tmp_path / "two")
    assert (written(), engine.name, engine.weights_id) == (adapted, "hf:one", identity)
    engine.reload(base)
    assert written() == plain


def test_an_adapter_is_a_whole_version_of_a_policy(base, tmp_path):
    save_adapter(base, tmp_path / "policy" / "v000003", seed=1)
    (tmp_path / "policy" / "current").symlink_to("v000003")
    assert current_policy(tmp_path / "policy").name == "v000003"


def test_vllm_is_not_given_an_adapter(base, tmp_path):
    save_adapter(base, tmp_path / "one", seed=1)
    with pytest.raises(UsageError, match="one: a LoRA adapter needs the hf back end"):
        open_text_engine(model=str(tmp_path / "one"), backend="vllm")


def without_some_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), folder / "adapter_model.safetensors")


def with_base(name):
    def change(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))

    return change


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (without_some_weights, "some of the adapter's weights are missing"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "cannot be read as that of an adapter"),
        (with_base(None), "names no base model"),
        (with_base("/nowhere/base"), "/nowhere/base: no such file or folder"),
        (lambda folder: with_base(str(folder))(folder), "is an adapter too"),
    ],
    ids=["half", "no weights", "no config", "no base", "base is gone", "base is an adapter"],
)
def test_a_broken_adapter_is_told(base, tmp_path, spoil, why):
    save_adapter(base, tmp_path / "one", seed=1)
    spoil(tmp_path / "one")
    with pytest.raises(ToolrollError, match=why):
        load_causal_lm(str(tmp_path / "one"), CPU)


def test_without_peft_the_extra_is_named(base, tmp_path, monkeypatch):
    save_adapter(base, tmp_path / "one", seed=1)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ToolrollError, match=r"pip install 'toolroll\[lora\]'"):
        load_causal_lm(str(tmp_path / "one"), CPU)
