"""Memory that really runs out: a child process under a limit of its address space."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path(__file__).parents[3] / "lib"
CHILD = """
import json, resource, sys
import torch, transformers
from toolroll.models.base import Generate, Sampling
from toolroll.models.device import Device
from toolroll.models.load import Loaded
from toolroll.models.scripted import ByteCodec
from toolroll.models.text import HFEngine

room_mib, sequences, length = map(int, sys.argv[1:])
torch.set_num_threads(1)
torch.manual_seed(0)
config = transformers.LlamaConfig(
    vocab_size=257, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=16,
    num_key_value_heads=16, head_dim=128, max_position_embeddings=4096, initializer_range=0.15, eos_token_id=256,
)  # 32 KiB of keys and values a token
model = transformers.LlamaForCausalLM(config).eval()
notes = []
engine = HFEngine(
    Loaded(model, ByteCodec(), "tiny", "0", Device("cpu", "float32", 1, "cpu")),
    batch=16, max_context=1100, notify=notes.append,
)
def ask(key, ids, count):
    engine.submit(key, Generate("", ids, Sampling(temperature=0.0, max_tokens=count)))
ask("warm", (1, 2, 3), 2)
while not engine.poll():
    pass
engine.release("warm")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (room_mib << 20), -1))
for i in range(sequences):
    ask(i, tuple((i * 31 + j * j) % 256 for j in range(length)), 4)
done = {}
while len(done) < sequences:
    for key, result in engine.poll():
        done[key] = str(result) if isinstance(result, Exception) else result.ids
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(json.dumps({"notes": notes, "done": done, "prefilled": engine.usage.prefilled, "capacity": engine.capacity}))
"""


def child(*arguments):
    env = {**os.environ, "PYTHONPATH": str(LIB), "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def unlimited():
    return child(20_000, 12, 300)


def test_the_batch_halves_itself_and_all_sequences_are_finished(unlimited):
    assert unlimited["notes"] == []
    assert unlimited["prefilled"] == 12 * 300 + 3
    tight = child(90, 12, 300)
    assert tight["notes"][0] == "out of memory with 16 sequences at once, going on with 8"
    assert tight["done"] == unlimited["done"]
    assert tight["prefilled"] > unlimited["prefilled"]


def test_a_sequence_too_long_for_the_memory_fails_with_its_length():
    done = child(20, 2, 1000)
    assert done["done"] == {str(i): "out of memory with this sequence alone (1000 tokens)" for i in range(2)}
    batches = [int(note.split()[4]) for note in done["notes"]]
    assert batches == [16, 8, 4, 2] * 2  # once the first has failed, the second may have all the memory
