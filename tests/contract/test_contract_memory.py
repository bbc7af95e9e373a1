"""Memory does not grow with the input."""

from __future__ import annotations

import json

import frame
import pytest

SMALL, LARGE = 10_000_000, 60_000_000
LIMIT_MB, GROWTH_MB = 40, 4
#: torch and transformers take 350; such commands get a quarter of the bytes, in rows that are four times as long.
WITH_TORCH_MB = 600
#: Their allocator keeps a piece of each size that it meets, some 4 MB in all; rows that are held would be 12 MB.
WITH_TORCH_GROWTH_MB = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """For a command and a size: a file of so many bytes, of rows of some kilobytes."""
    folder = tmp_path_factory.mktemp("inputs")

    def make(command, size):
        path = folder / f"{command.name}-{size}.jsonl"
        if not path.exists():
            extra = {"filler": "some words " * 1200} if command.name in frame.WARM else {"text": "some words " * 300}
            rows = [{**command.specimen.row(i), **extra} for i in range(25 if "filler" in extra else 100)]
            block = "".join(json.dumps(row) + "\n" for row in rows).encode()
            path.write_bytes(block * (size // len(block)))
        return path

    return make


@pytest.mark.parametrize(
    "command",
    [*frame.MAPPERS, *(c for c in frame.REDUCERS if not (c.specimen.names_output or c.specimen.holds_rows))],
    ids=str,
)
def test_memory_is_flat(command, inputs, tmp_path):
    heavy = command.name in frame.WARM
    share, limit, growth = (4, WITH_TORCH_MB, WITH_TORCH_GROWTH_MB) if heavy else (1, LIMIT_MB, GROWTH_MB)
    small, large = (
        frame.peak_rss_mb(command.line(tmp_path, inputs=(inputs(command, size // share),)), cwd=tmp_path)
        for size in (SMALL, LARGE)
    )
    assert large < limit
    assert large - small < growth


@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_memory_is_flat_when_every_row_is_bad(mode, tmp_path):
    command = frame.own("fail-some")
    failed = b'{"error":{"why":"w","where":"f:1"},"x":"' + b"a" * 500 + b'"}\n'
    for name, line in (("bad", b"oops" * 100 + b"\n"), ("passed", failed)):
        for size in (1, 12):
            (tmp_path / f"{name}{size}").write_bytes(line * (2000 * size))
        peaks = [
            frame.peak_rss_mb(command.line(tmp_path, "--on-error", mode, inputs=(f"{name}{size}",)), cwd=tmp_path)
            for size in (1, 12)
        ]
        assert peaks[1] - peaks[0] < GROWTH_MB


def test_memory_is_flat_when_compressed(tmp_path):
    command = frame.own("tag")
    (tmp_path / "small").write_bytes(command.lines(20_000))
    for suffix in (".gz", ".zst"):
        assert command.run(tmp_path, "-o", f"in{suffix}", inputs=("small",)).rc == 0
        small, large = (
            frame.peak_rss_mb(
                command.line(tmp_path, "-o", f"out{suffix}", inputs=(f"in{suffix}",) * count), cwd=tmp_path
            )
            for count in (1, 5)
        )
        assert large < LIMIT_MB
        assert large - small < GROWTH_MB
