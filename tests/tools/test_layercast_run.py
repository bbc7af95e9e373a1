"""layercast-run as a user runs it: grids that are killed, what records say, memory."""

from __future__ import annotations

import json
import signal

import frame
import pytest

TINY = ("--model", str(frame.ROOT / "tests/data/tiny-llama"), "--device", "cpu", "--keep", "fp32")
GRID = ("--grid", "batch=1,3", "precision=fp32,layercast", "tp=1,2")
PROMPTS = "".join(
    json.dumps({"id": f"p{i}", "prompt": "WHAT IS " + "LONG " * (i % 4) + str(i)}) + "\n" for i in range(6)
).encode()


def run(folder, *args, stdin=PROMPTS):
    return frame.run([frame.BIN / "layercast-run", *TINY, "--response-tokens", "4", *args], cwd=folder, stdin=stdin)


def test_a_grid_killed_anywhere_goes_on_to_the_same_bytes(tmp_path):
    whole = run(tmp_path, *GRID, "-o", "whole.jsonl")
    assert whole.rc == 0
    expected = (tmp_path / "whole.jsonl").read_bytes()
    assert expected.count(b"\n") == 6 * 2 * 2 * 2
    for lines in (1, 8, 14, 20, 31):
        part = tmp_path / "out.jsonl.part"
        argv = [frame.BIN / "layercast-run", *TINY, "--response-tokens", "4", *GRID, "-o", "out.jsonl", "--resume"]
        (tmp_path / "prompts").write_bytes(PROMPTS)
        with frame.started([*argv, "prompts"], cwd=tmp_path) as process:
            frame.wait_until(
                lambda part=part, lines=lines: part.exists() and part.read_bytes().count(b"\n") >= lines, "rows"
            )
            process.send_signal(signal.SIGKILL)
    again = run(tmp_path, *GRID, "-o", "out.jsonl", "--resume")
    assert again.rc == 0
    assert "skipped" in again.err
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_a_record_says_how_it_was_computed(tmp_path):
    rows = run(tmp_path, "--precision", "layercast", "--sim-tp", "2", "--threads", "1", "--timings").rows
    config = rows[0]["config"]
    expected = {
        "model": "tiny-llama",
        "backend": "hf",
        "precision": "layercast",
        "weight_dtype": "fp32",
        "kv_dtype": "fp32",
        "linear": "fused",
        "batch_size": 8,
        "tp": 2,
        "tp_simulated": True,
        "threads": 1,
        "max_tokens": 4,
        "temperature": 0.0,
    }
    assert {name: config[name] for name in expected} == expected
    assert {"weights", "device", "capability", "blas", "versions"} <= set(config)
    assert set(config["versions"]) == {"torch", "transformers", "numba"}
    for row in rows:
        assert len(row["tokens"]) == len(row["top1_prob"]) == len(row["gap"]) == len(row["top_ids"]) == row["n_tokens"]
        assert [ids[0] for ids in row["top_ids"]] == row["tokens"]
        assert all(1 >= one >= two >= 0 for one, two in zip(row["top1_prob"], row["top2_prob"], strict=True))
        assert row["ms"] > 0
        assert row["peak_rss_bytes"] > 1e8


def test_without_timings_two_runs_are_the_same_bytes(tmp_path):
    assert run(tmp_path).out == run(tmp_path).out


def test_fewer_probable_tokens_leave_fields_out(tmp_path):
    assert not {"top_ids", "top_logprobs"} & set(run(tmp_path, "--top-logprobs", "0").rows[0])
    assert len(run(tmp_path, "--top-logprobs", "1").rows[0]["top_ids"][0]) == 1


def test_samples_differ_and_have_seeds_of_their_own(tmp_path):
    rows = run(tmp_path, "--samples", "3", "--temperature", "1").rows
    assert [(row["id"], row["sample"]) for row in rows[:4]] == [("p0", 0), ("p0", 1), ("p0", 2), ("p1", 0)]
    assert len({row["seed"] for row in rows}) == len(rows)
    assert len({tuple(row["tokens"]) for row in rows}) > len(rows) // 2


def test_a_prompt_longer_than_the_model_reads_is_an_error_row(tmp_path):
    long = json.dumps({"id": "long", "prompt": "A" * 600}).encode() + b"\n"
    result = run(tmp_path, "--on-error", "keep", stdin=long + PROMPTS)
    assert result.rc == 0
    assert "600 tokens, which leaves no room" in result.rows[0]["error"]["why"]
    assert len(result.rows) == 7


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--model", "no/such/model/here"), "no/such/model/here: no such file or folder"),
        (("--backend", "vllm", "--precision", "layercast"), "--precision: vLLM runs bf16, fp16 and fp32"),
        (("--sim-tp", "3"), "inputs cannot be cut into 3"),
        (("--device", "cuda"), "--device: torch sees no usable GPU here"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, args, why):
    result = run(tmp_path, *args)
    assert result.rc in (1, 2)
    assert why in result.err
    assert len(result.complaints) == 1
    assert result.out == b""
