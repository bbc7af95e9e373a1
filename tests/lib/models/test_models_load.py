"""Loading: a folder, a GGUF file converted once, the embedded model, and what is said when there is none of them."""

import socket
import subprocess
import sys
import threading
import time
import warnings

import gguf
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from toolroll.errors import ToolrollError, UsageError
from toolroll.models import device as devices
from toolroll.models import hub, load
from toolroll.models.codec import HFCodec, _byte_symbols
from toolroll.models.device import Device, choose_device, cpu_threads, freest_gpu
from toolroll.models.load import cache_dir, fingerprint, load_causal_lm, prepare_gguf

CPU = Device("cpu", "float32", 1, "cpu")
SPECIAL = ["<|end|>", "<|start|>"]
TOKENS = [*SPECIAL, *_byte_symbols(), "Ġa", "th"]
CHAT = "{% for m in messages %}<|start|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"


def small_model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=True,
        max_position_embeddings=128,
    )
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16).float().eval()


@pytest.fixture
def gguf_file(tmp_path, monkeypatch):
    """A small Llama as a GGUF file, and the model it holds; the cache is in tmp_path."""
    monkeypatch.setenv("TOOLROLL_HOME", str(tmp_path / "cache"))
    model = small_model()
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(["Ġ a", "t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
            values = tensor.numpy() if heads is None else _interleaved(tensor.numpy(), heads)
            writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model


def _interleaved(weight, heads):
    """The order of rotary dimensions that GGUF uses."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def test_a_gguf_file_becomes_the_model_it_holds(gguf_file):
    path, model = gguf_file
    said = []
    loaded = load_causal_lm(str(path), CPU, notify=said.append)
    ids = torch.tensor([[5, 70, 200, 9, 31]])
    with torch.inference_mode():
        assert torch.allclose(loaded.model(ids).logits, model(ids).logits, atol=1e-4)
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert not loaded.model.training
    assert loaded.name == "small"
    assert loaded.codec.eos_ids == {0}
    assert loaded.codec.chat([{"role": "user", "content": "hi"}]) == "<|start|>hiA:"
    assert loaded.codec.decode((0, *loaded.codec.encode("that a é"), 1)) == "that a é"
    assert len(said) == 1
    again = load_causal_lm(str(path), CPU, notify=said.append)
    assert len(said) == 1
    assert again.weights_id == loaded.weights_id
    folder = prepare_gguf(path)
    assert sorted(entry.name for entry in folder.parent.iterdir()) == sorted([folder.name, folder.name + ".lock"])
    assert folder.parent.parent == cache_dir()
    assert load_causal_lm(str(folder), CPU).weights_id == loaded.weights_id


def test_a_model_with_weights_missing_is_not_made_up(tmp_path):
    model = small_model()
    kept = {name: tensor for name, tensor in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    byte_level_codec().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        ToolrollError, match=r"3 of its weights are missing, among them model\.layers\.1\.mlp\.down_proj"
    ):
        load_causal_lm(str(tmp_path), CPU)


def test_two_processes_convert_a_file_once(gguf_file):
    path, _ = gguf_file
    code = "import sys, pathlib, toolroll.models.load as load; load.prepare_gguf(pathlib.Path(sys.argv[1]), print)"
    children = [
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(map(bool, said)) == [False, True]


def test_a_conversion_that_fails_leaves_nothing_behind(gguf_file, monkeypatch):
    path, _ = gguf_file

    def fail(path, folder):
        (folder / "half").write_text("x")
        raise ValueError("no\nmore")

    monkeypatch.setattr(load, "_write_folder", fail)
    with pytest.raises(ToolrollError, match=r"small\.gguf: cannot be loaded as a causal language model: no$"):
        load_causal_lm(str(path), CPU)
    assert [entry.suffix for entry in (cache_dir() / "gguf").iterdir()] == [".lock"]


def test_weights_that_differ_have_another_id(tmp_path):
    ids = set()
    for shift in (0.0, 0.001):
        model = small_model()
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight += shift
        model.save_pretrained(tmp_path / str(shift))
        ids.add(load.weights_id(str(tmp_path / str(shift)), model))
    assert len(ids) == 2
    assert all(len(one) == 16 for one in ids)


def test_fingerprint_sees_any_byte_of_a_small_file(tmp_path):
    path, seen = tmp_path / "x", set()
    for at in (None, 0, 1000, 69_999):
        content = bytearray(70_000)
        if at is not None:
            content[at] = 1
        path.write_bytes(content)
        seen.add(fingerprint(path))
    path.write_bytes(b"")
    assert len({*seen, fingerprint(path)}) == 5


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda d: d / "none", "no such file or folder"),
        (lambda d: d / "none.gguf", "no such file or folder"),
        (lambda d: d, "no config.json"),
        (lambda d: _file(d / "x.bin", b"x"), "neither a folder nor a .gguf file"),
        (lambda d: _file(d / "x.gguf", b"garbage " * 99), "cannot be loaded as a causal language model"),
        (lambda d: _file(d / "y.gguf", b""), "cannot be loaded as a causal language model"),
        (lambda d: _folder(d / "m", '{"model_type": "vit"}'), "cannot be loaded as a causal language model"),
        (lambda d: _folder(d / "m", '{"model_type": "nonsense"}'), "cannot be loaded as a causal language model"),
        (lambda d: _folder(d / "m", "{"), "cannot be loaded as a causal language model"),
    ],
)
def test_what_is_no_model_is_said_in_one_line(tmp_path, monkeypatch, make, why):
    monkeypatch.setenv("TOOLROLL_HOME", str(tmp_path / "cache"))
    name = str(make(tmp_path))
    with pytest.raises(ToolrollError, match=why) as caught:
        load_causal_lm(name, CPU)
    assert caught.value.place == name
    assert "\n" not in str(caught.value)


def _file(path, content):
    path.write_bytes(content)
    return path


def _folder(path, config):
    path.mkdir()
    (path / "config.json").write_text(config)
    return path


def test_no_embedded_model(monkeypatch):
    monkeypatch.setattr(load, "_EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(ToolrollError, match="embedded: install it with"):
        load_causal_lm("embedded", CPU)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("TOOLROLL_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "toolroll"
    monkeypatch.setenv("TOOLROLL_HOME", "/else")
    assert str(cache_dir()) == "/else"


def test_importing_and_looking_does_not_load_torch():
    code = "import sys; from toolroll.models import device, load, episodes, scripted; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def byte_level_codec():
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, [("Ġ", "a"), ("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return HFCodec(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>"), [1])


def test_pieces_of_a_byte_level_vocabulary():
    codec = byte_level_codec()
    pieces = codec.pieces()
    assert pieces[:2] == [None, None]
    assert pieces[2:258] == [bytes((byte,)) for byte in range(256)]
    assert pieces[258:] == [b" a", b"th"]
    assert b"".join(pieces[i] for i in codec.encode("path a é\n")) == "path a é\n".encode()
    assert codec.eos_ids == {0, 1}
    assert codec.chat([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]) == "x\ny"


def test_pieces_of_a_sentencepiece_vocabulary():
    vocabulary = {"<unk>": 0, "<0x0A>": 1, "▁": 2, "a": 3, "▁a": 4}
    backend = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    codec = HFCodec(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    assert codec.pieces() == [None, b"\n", b" ", b"a", b" a"]
    assert codec.eos_ids == frozenset()


def test_pieces_of_a_vocabulary_without_fixed_bytes():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    codec = HFCodec(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"))
    with pytest.raises(ToolrollError, match="do not stand for fixed bytes"):
        codec.pieces()


def test_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert cpu_threads() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    assert cpu_threads() == 7
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "0")
    assert cpu_threads() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what was asked for, above what was allotted
    assert cpu_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # a list, by levels: torch's affair
    assert cpu_threads() == 7


@pytest.fixture
def no_thread_change(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


def test_without_a_gpu(monkeypatch, no_thread_change):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().name == choose_device("cpu").name == "cpu"
    assert choose_device().dtype == "float32"
    assert choose_device(dtype="bfloat16").dtype == "bfloat16"
    assert "no usable GPU" in choose_device().text
    with pytest.raises(UsageError, match="--device: torch sees no usable GPU"):
        choose_device("cuda")
    for device in ("cuda:7", "tpu"):
        with pytest.raises(UsageError, match=r"^--clip-device: "):
            choose_device(device, option="--clip-device")


@pytest.mark.parametrize(("device", "dtype"), [("tpu", "auto"), ("cuda:x", "auto"), ("cpu:1", "auto"), ("cpu", "int4")])
def test_devices_that_are_none(device, dtype):
    with pytest.raises(UsageError, match="is not"):
        choose_device(device, dtype)


class FakeNVML:
    """Three GPUs with 1, 9 and 5 GiB free."""

    NVMLError = RuntimeError

    def __init__(self, broken=False):
        self.broken = broken

    def nvmlInit(self):
        if self.broken:
            raise self.NVMLError("no library")

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, name):
        return {"GPU-a": 0, "GPU-c": 2}[name]

    def nvmlDeviceGetMemoryInfo(self, handle):
        return type("Memory", (), {"free": [1, 9, 5][handle] << 30})


@pytest.mark.parametrize(
    ("visible", "count", "best"),
    [(None, 3, (1, 9 << 30)), ("2,0", 2, (0, 5 << 30)), ("GPU-a, GPU-c", 2, (1, 5 << 30)), ("0", 1, (0, 1 << 30))],
)
def test_the_freest_gpu_is_counted_as_torch_counts(monkeypatch, visible, count, best):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert freest_gpu(count) == best


def test_no_nvml_means_the_first_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML(broken=True))
    assert freest_gpu(4) == (0, None)


def test_with_gpus(monkeypatch, no_thread_change):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"gpu {number}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "device", lambda _: warnings.catch_warnings())
    chosen = choose_device()
    assert (chosen.name, chosen.dtype, chosen.is_cuda) == ("cuda:1", "bfloat16", True)
    assert chosen.text == "cuda:1 (gpu 1), bfloat16, 9.0 GiB free"
    assert choose_device("cuda:2", "float32").name == "cuda:2"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert choose_device("cuda").dtype == "float16"
    with pytest.raises(UsageError, match="cuda:3 asked for, 3 visible"):
        choose_device("cuda:3")


@pytest.fixture
def seek(monkeypatch):
    """What is said of a hub at some address, and whether it is taken for gone."""

    def found(endpoint):
        said = []
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub.seek_hub(said.append)
        assert bool(said) == constants.HF_HUB_OFFLINE
        return said

    monkeypatch.setattr(hub, "getproxies", dict)
    hub._answers.cache_clear()
    yield found
    hub._answers.cache_clear()


def test_a_hub_is_there_that_takes_a_connection(seek):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert seek(address) == []
    hub._answers.cache_clear()
    assert seek(address) == [f"{address} cannot be reached: models are looked for in the cache alone"]


def test_a_name_server_that_does_not_answer_is_not_waited_for(seek, monkeypatch):
    done = threading.Event()

    def looked_up(*_, **__):
        done.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(hub, "WAIT_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    start = time.monotonic()
    assert seek("https://huggingface.co") != []
    done.set()
    assert time.monotonic() - start < 10
