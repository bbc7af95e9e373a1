"""judgefree-pairs with tiny models: pairs are made, resumed, scored, decided, read by TRL and trained on."""

from __future__ import annotations

import json
import signal
import warnings

import frame
import pytest
import tiny_clip_models
import tiny_pairs
from replying import replying

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

COMMAND = next(command for command in frame.COMMANDS if command.name == "judgefree-pairs")


def run(folder, *args, rows=None, rc=0):
    """The result of the command on `rows`, in `folder`."""
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows or ())
    argv = [COMMAND.argv[0], *map(str, args), "--device", "cpu", "--clip-device", "cpu"]
    result = frame.run(argv, stdin=stdin, cwd=folder)
    assert result.rc == rc, result.err
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("judgefree")
    tiny_pairs.write_image_model(made / "llava")
    tiny_clip_models.write(made / "clip")
    for name, colour in (("red", (200, 20, 20)), ("blue", (20, 20, 200)), ("green", (20, 200, 20))):
        tiny_pairs.picture(made / f"{name}.png", colour)
    return made


ROWS = [
    {"id": "a", "image": "red.png"},
    {"id": "b", "images": ["blue.png"], "prompt": "What?", "kept": 1},
    {"id": "c", "image_path": "green.png", "prompt": [{"role": "user", "content": "<x> And this?"}]},
]
MAKE = ("--stage", "generate", "--model", "llava", "--response-tokens", "8")


def test_pairs_are_made(folder):
    rows = run(folder, *MAKE, "--samples", "2", rows=ROWS).rows
    assert [(row["id"], row["sample"]) for row in rows] == [(name, i) for name in "abc" for i in (0, 1)]
    assert len({row["made"]["rejected"]["h"] for row in rows}) == 6
    for row in rows:
        assert 0.1 <= row["made"]["rejected"]["h"] <= 1
        assert row["made"]["chosen"]["h"] == 0
        assert row["chosen"][0]["role"] == "assistant"
        assert row["prompt"][0]["content"][0] == {"type": "image"}
        assert len(row["images"]) == len(row["images_sha256"]) == 1
        assert len(row["images_sha256"][0]) == 64
    assert rows[2]["kept"] == 1
    assert rows[2]["prompt"][0]["content"][1]["text"] == "What?"
    alone = run(folder, *MAKE, "--samples", "2", "--batch-size", "1", rows=ROWS[::-1]).rows
    texts = {(row["id"], row["sample"]): (row["chosen"], row["rejected"], row["made"]) for row in rows}
    assert {(row["id"], row["sample"]): (row["chosen"], row["rejected"], row["made"]) for row in alone} == texts
    other = run(folder, *MAKE, "--seed", "1", rows=ROWS[:1]).rows
    assert other[0]["made"]["rejected"]["h"] != rows[0]["made"]["rejected"]["h"]


@pytest.mark.parametrize(
    "args",
    [
        ("--mix", "prob", "--h", "uniform:0.2,0.4", "--uncond", "blank"),
        ("--mix", "switch-word", "--h", "grid:0.5", "--uncond", "corrupt"),
        ("--h-chosen", "-0.5", "--h", "0.5", "--uncond", "noise:500", "--temperature", "0"),
        ("--h", "0.5", "--uncond", "prompt:bad.txt", "--top-k", "5"),
        ("--h", "1", "--uncond", "shuffle:rows.jsonl"),
    ],
    ids=lambda args: args[-1],
)
def test_all_kinds_of_other_branches(folder, args):
    (folder / "bad.txt").write_text("Make things up.\n")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rows = run(folder, *MAKE, *args, rows=ROWS).rows
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert all(row["made"]["uncond"] == args[args.index("--uncond") + 1] for row in rows)


def test_a_ladder_makes_all_pairs_of_its_levels(folder):
    rows = run(folder, *MAKE, "--ladder", "0.6,0,0.3", rows=ROWS[:1]).rows
    assert [(row["made"]["chosen"]["h"], row["made"]["rejected"]["h"]) for row in rows] == [
        (0, 0.3),
        (0, 0.6),
        (0.3, 0.6),
    ]
    assert rows[0]["chosen"] == rows[1]["chosen"]
    assert rows[1]["rejected"] == rows[2]["rejected"]


def test_a_given_answer_gets_a_rejected_one_and_a_pair_stays(folder):
    given = [{**ROWS[0], "chosen": "A red square."}, {**ROWS[1], "chosen": "A", "rejected": "B"}]
    one, other = run(folder, *MAKE, rows=given).rows
    assert one["chosen"][0]["content"][0]["text"] == "A red square."
    assert one["made"]["chosen"] is None
    assert one["made"]["rejected"]["h"] > 0
    assert [other[side][0]["content"][0]["text"] for side in ("chosen", "rejected")] == ["A", "B"]
    assert (other["images"], "made" in other) == (["blue.png"], False)


def test_scores_as_csr_has_them_and_tokens_and_rounds_are_noted(folder):
    args = ("--clip", "clip", "--scorer-preset", "csr", "--with-dropped")
    rows = run(folder, *MAKE, "--round", "3", rows=ROWS).rows
    assert all(row["made"]["round"] == 3 for row in rows)
    stdin = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    logps = frame.shell("pair-logps --model llava --device cpu", cwd=folder, stdin=stdin).rows
    assert [row["made"]["prompt_tokens"] for row in rows] == [row["prompt_tokens"] for row in logps]
    whole = run(folder, "--model", "llava", "--response-tokens", "8", "--round", "3", *args, rows=ROWS).rows
    parts = run(folder, "--stage", "score,decide", "--model", "llava", *args, rows=rows).rows
    assert whole == parts
    scored = [row for row in whole if row["reason"] != "empty"]
    assert scored
    for row in scored:
        clip = row["clip"]
        assert clip["preset"] == "csr"
        assert clip["chosen"]["score"] + clip["rejected"]["score"] == pytest.approx(50)
        for side in ("chosen", "rejected"):
            assert all(one["logprob"] < 0 for one in clip[side]["sentences"])
    most = max(row["made"]["prompt_tokens"] for row in rows) + 7
    fewer = run(folder, "--stage", "decide", "--max-total-tokens", most, "--with-dropped", rows=whole).rows
    assert "tokens" in {row["reason"] for row in fewer}
    (short,) = run(folder, "--stage", "score", *args, "--csr-weight", "1", rows=rows[:1]).rows
    assert {one["logprob"] for side in ("chosen", "rejected") for one in short["clip"][side]["sentences"]} <= {None}


def test_bad_rows_fail_alone(folder):
    (folder / "not.png").write_bytes(b"no image")
    bad = [
        ({"image": "red.png"}, "no `id`"),
        ({"id": 1, "prompt": "What?"}, "the row has no image"),
        ({"id": 2, "image": "gone.png"}, "gone.png: No such file"),
        ({"id": 3, "image": "not.png"}, "not an image"),
        ({"id": 4, "image": "red.png", "prompt": " "}, "the prompt is empty"),
        ({"id": 5, "image": "red.png", "prompt": 7}, "neither text nor messages"),
        ({"id": 6, "image": 7}, "neither a path"),
        ({"id": 7, "image": "red.png", "prompt": "word " * 10_000}, "too many"),
    ]
    rows = [ROWS[0], *(row for row, _ in bad), ROWS[1]]
    found = run(folder, *MAKE, "--on-error", "keep", rows=rows).rows
    assert ["error" in row for row in found] == [False, *[True] * len(bad), False]
    for row, (_, why) in zip(found[1:-1], bad, strict=True):
        assert why in row["error"]["why"]
    assert found[0] == run(folder, *MAKE, rows=ROWS[:1]).rows[0]


def test_a_resumed_run_makes_the_same_pairs(folder, tmp_path):
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    whole = run(folder, *MAKE, "--samples", "2", "in.jsonl", "--no-meta", "-o", tmp_path / "whole").rc
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "part.part").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    resume = ("--no-meta", "--resume", "-o", tmp_path / "part")
    assert run(folder, *MAKE, "--samples", "2", "in.jsonl", *resume).rc == whole
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


STAGES = {  # of 11 rows, with 2 pairs each
    "generate": (*MAKE, "--samples", "2", "--batch-size", "4"),
    "generate,score": (
        *MAKE[2:],
        "--stage",
        "generate,score",
        "--samples",
        "2",
        "--batch-size",
        "4",
        "--clip-batch",
        "3",
    ),
    "csr": (*MAKE[2:], "--stage", "generate,score", "--scorer-preset", "csr", "--samples", "2", "--batch-size", "4"),
    "score": ("--stage", "score", "--clip-batch", "4"),
    "all": (*MAKE[2:], "--samples", "2", "--batch-size", "4", "--keep-margin", "1"),
}


@pytest.mark.parametrize("stages", STAGES)
def test_killed_and_resumed_it_makes_the_same_to_the_last_bit(folder, tmp_path, stages):
    """What shares a batch moves scores in their last bits, so that a resumed run makes the same batches."""
    asked = [{**ROWS[i % 3], "id": i, "prompt": f"What? {i * 'So? '}"} for i in range(11)]
    rows = run(folder, *MAKE, "--samples", "2", rows=asked).rows if stages == "score" else asked
    (folder / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = (*STAGES[stages], "--clip", "clip", "--no-meta", "many.jsonl")
    whole = run(folder, *args).out
    lines = whole.splitlines(keepends=True)
    out, part = tmp_path / "out", tmp_path / "out.part"
    assert len(lines) >= 10
    for kept in (1, 4, len(lines) // 2, len(lines) - 1):
        part.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        run(folder, *args, "--resume", "-o", out)
        assert out.read_bytes() == whole, kept


def test_resumed_no_row_is_written_twice(folder, tmp_path):
    """Not one that is a pair already, nor one that failed before a pair was made."""
    rows = [{**ROWS[0], "chosen": "A", "rejected": "B"}, {"id": "x", "image": 7}, {**ROWS[1], "id": "d"}]
    (folder / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = (*MAKE, "--on-error", "keep", "--no-meta", "mixed.jsonl")
    whole = run(folder, *args).out
    lines = whole.splitlines(keepends=True)
    for kept in range(3):
        (tmp_path / "out.part").write_bytes(b"".join(lines[:kept]) + lines[kept][:9])
        run(folder, *args, "--resume", "-o", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == whole


@pytest.mark.network
def test_asked_to_stop_it_finishes_the_rows_in_hand(folder, tmp_path):
    processes = []

    def answer():
        if len(processes) == 1 and part.exists() and part.stat().st_size:  # while the second rows are made
            processes.append(processes[0].send_signal(signal.SIGTERM))
        return "A red square."

    (folder / "nine.jsonl").write_text("".join(json.dumps({**ROWS[0], "id": i}) + "\n" for i in range(99)))
    part = tmp_path / "out.part"
    args = ("--stage", "generate,score", "--h", "0", "--clip", "clip", "--clip-device", "cpu", "--concurrency", "2")
    with replying(answer) as url:
        line = [COMMAND.argv[0], *args, "--base-url", url, "--model", "m", "-o", str(tmp_path / "out"), "nine.jsonl"]
        with frame.started(line, cwd=folder) as process:
            processes.append(process)
            stopped = frame.ended(process)
    told = "judgefree-pairs: warning: stopped by SIGTERM; --resume continues it"
    assert (stopped.rc, stopped.complaints[-1:]) == (75, [told])
    rows = [json.loads(line) for line in part.read_bytes().splitlines()]
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len(rows) == 4  # the rows of two blocks
    assert all(row["clip"]["rejected"]["score"] is not None for row in rows)


def test_from_images_to_training(folder, tmp_path):
    """All stages at once are the stages one by one, and dpo-train takes the rows."""
    all_args = ("--model", "llava", "--response-tokens", "8", "--clip", "clip", "--with-dropped")
    whole = run(folder, *all_args, "--samples", "2", rows=ROWS).rows
    rows = run(folder, *MAKE, "--samples", "2", rows=ROWS).rows
    for stage in ("score", "decide"):
        rows = run(folder, "--stage", stage, "--clip", "clip", "--with-dropped", rows=rows).rows
    assert rows == whole
    assert {row["action"] for row in rows} <= {"keep", "reverse", "drop"}
    kept = [row for row in rows if row["action"] != "drop"]
    assert all(row["delta"] > 0 for row in kept)
    assert all(row["clip"]["chosen"]["score"] - row["clip"]["rejected"]["score"] == row["delta"] for row in kept)
    assert all((row["made"]["chosen"]["h"] > 0) == row["reversed"] for row in kept)
    without = run(
        folder, "--model", "llava", "--response-tokens", "8", "--clip", "clip", "--samples", "2", rows=ROWS
    ).rows
    assert without == kept

    (folder / "kept.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    line = f"dpo-train --policy {tmp_path}/policy --model llava --device cpu --images {folder} kept.jsonl"
    trained = frame.shell(line, cwd=folder)
    assert trained.rc == 0, trained.err
    assert trained.rows[-1]["pairs"] == len(kept)


@pytest.mark.filterwarnings("ignore")
def test_trl_reads_the_rows_unchanged(folder, tmp_path):
    pytest.importorskip("trl", reason="trl, the judge of the rows, is a development dependency")
    datasets = pytest.importorskip("datasets", reason="TRL's trainers read data sets of this package")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import trl
        from transformers import AutoModelForImageTextToText, AutoProcessor
    rows = run(folder, *MAKE, "--samples", "2", rows=ROWS).rows
    rows = run(folder, "--stage", "score,decide", "--clip", "clip", rows=rows).rows
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        "".join(json.dumps({**row, "images": [str(folder / name) for name in row["images"]]}) + "\n" for row in rows)
    )
    data = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    data = data.cast_column("images", datasets.List(datasets.Image()))
    assert trl.data_utils.is_conversational(data[0])
    args = trl.DPOConfig(
        output_dir=str(tmp_path / "out"),
        max_length=None,
        per_device_train_batch_size=len(rows),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    model = AutoModelForImageTextToText.from_pretrained(folder / "llava")
    trainer = trl.DPOTrainer(
        model, args=args, train_dataset=data, processing_class=AutoProcessor.from_pretrained(folder / "llava")
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].shape[0] in (len(rows), 2 * len(rows))
    assert torch.isfinite(trainer.compute_loss(trainer.model, batch))
