"""Every target in one table: what is measured, how good it has to be, and why it is short of that where it is known.

A target is missed grossly when the figure is twice as bad as it should be, or worse than `gross` where twice means
nothing. Short of a target is listed with its reason; only a gross miss is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from common import Line, number

GROSS = 2.0
GIVEN = "step-reward --judge given"
JSON = "on these rows json takes 4 times the CPU of the orjson loop, and a command may take 1.5 times the loop's"

NOT_RUN = {
    "OpenSplat": "it is neither on PyPI nor in Debian",
    "gsplat": "its kernels need CUDA",
    "vLLM": "its build for CPUs wants an environment of its own",
    "TRL's GRPOTrainer": "it does not train on rollouts that exist; its loss is a test's judge",
    "CalibQuant's and KIVI's kernels": "they need CUDA, and are no packages",
    "HQQ and optimum-quanto, caches of transformers": "they unpack for every token, as `dequantize, then SDPA` does",
    "Miller, DuckDB and Polars": "jq and Python's json stand for other programs that read rows",
}


@dataclass(frozen=True)
class Target:
    """What lines of a table have to reach: the worst of them counts.

    table: the benchmark. measure: what it is, for people. lines, peer, unit: patterns of the lines it is about; with a
    peer the ratio to it is judged, without one the figure itself. least, most: the bound; without one the figure is
    only shown. gross: where a gross miss begins, by default at twice as bad. cores: fewer cannot judge it.
    reason: why it may be short. absent: why it cannot be measured.
    """

    table: str
    measure: str
    lines: str = "*"
    peer: str | None = None
    unit: str = "*"
    least: float | None = None
    most: float | None = None
    gross: float | None = None
    cores: int = 1
    reason: str = "no reason is known"
    absent: str | None = None

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.least is None and self.most is None:
            return "none"
        words = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return words if self.peer is None else f"{words} times"

    def of(self, lines: Sequence[Line]) -> list[Line]:
        """The lines that it is about."""
        return [
            line
            for line in lines
            if fnmatchcase(line.what, self.lines)
            and fnmatchcase(line.unit, self.unit)
            and (self.peer is None or (line.peer and fnmatchcase(line.peer, self.peer)))
        ]

    def short(self, figure: float) -> bool:
        """Whether a figure is not what it should be."""
        return figure < self.least if self.least is not None else self.most is not None and figure > self.most

    def gross_miss(self, figure: float) -> bool:
        """Whether a figure is far from what it should be."""
        if self.least is not None:
            return figure < (self.least / GROSS if self.gross is None else self.gross)
        return self.most is not None and figure > (self.most * GROSS if self.gross is None else self.gross)


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, what came of it, and whether it is a gross miss."""

    target: Target
    measured: str
    result: str
    gross: bool = False


def judge(target: Target, lines: Sequence[Line], cores: int) -> Verdict:
    """What the lines of a table say about a target. KeyError where none is about it."""
    if target.absent is not None:
        return Verdict(target, "", f"not run: {target.absent}")
    about = target.of(lines)
    if not about:
        raise KeyError(f"{target.table}: no line is about {target.measure}")
    found = [line.ours if target.peer is None else line.ratio for line in about]
    figures = sorted(figure for figure in found if figure is not None)
    if not figures:
        return Verdict(target, "", f"not run: {about[0].peer} is not installed")
    ends = dict.fromkeys(number(figure) for figure in (figures[0], figures[-1]))
    unit = f" {about[0].unit}" if target.peer is None else ""
    measured = " to ".join(ends) + unit
    if cores < target.cores:
        return Verdict(target, measured, f"not judged: it takes {target.cores} cores, here are {cores}")
    worst = figures[0] if target.least is not None else figures[-1]
    if target.gross_miss(worst):
        return Verdict(target, measured, f"**gross miss**: {target.reason}", gross=True)
    if target.short(worst):
        return Verdict(target, measured, f"short: {target.reason}")
    return Verdict(target, measured, "" if target.least is None and target.most is None else "met")


TARGETS = [
    Target(
        "startup",
        "CPU of `--help`, `--version` and completion, times Python's own",
        peer="*",
        most=8,
        reason="importing click, orjson and msgspec alone is 5 times Python's own start",
    ),
    Target("rows", "CPU of step-parse, times a bare orjson loop's", "step-parse", "orjson loop", most=1.5),
    Target("rows", "CPU of step-reward, times a bare orjson loop's", GIVEN, "orjson loop", most=1.5),
    Target("rows", "rate of step-parse, times that of `jq -c .`", "step-parse", "`jq -c .`", least=4),
    Target("rows", "rate of step-reward, times that of `jq -c .`", GIVEN, "`jq -c .`", least=4),
    Target("rows", "rate of step-parse, times that of Python's json", "step-parse", "json loop", least=4, reason=JSON),
    Target("rows", "rate of step-reward, times that of Python's json", GIVEN, "json loop", least=4, reason=JSON),
    Target(
        "rows",
        "rate of step-stats, which only counts, times that of step-reward",
        "step-stats",
        GIVEN,
        least=2,
        reason="it reads the answer and all steps of a row, not one or two fields, and matches the answer",
    ),
    Target("rows", "memory of row-wise commands", "*, memory", most=40),
    Target("rows", "memory of row-wise commands, times that for a twentieth of the rows", "*, memory", "*", most=1.1),
    Target("rows", "wall time of a pipe of three, times its slowest's", "* | *", "*", most=1.2, cores=3),
    Target("retrieval", "queries a second, times SQLite FTS5's", "queries", "SQLite FTS5"),
    Target("retrieval", "queries a second, times tantivy's", "queries", "tantivy"),
    Target("retrieval", "queries a second, times those of bm25s used directly", "queries", "bm25s"),
    Target(
        "rollout",
        "tokens a second, times a lockstep loop's",
        "rag-rollout*",
        "lockstep*",
        least=2,
        reason="threads speed up reading, which the loop does again and again, and hardly writing; with one it is met",
    ),
    Target("rollout", "CPU of all but the model, times the model's", "all but the model", "*", most=0.01),
    Target(
        "bandit",
        "CPU of ucb-update, times a loop's that only decodes",
        "ucb-update, one batch",
        "*",
        most=2.5,
        reason="ids are kept and journaled so that no row counts twice, which takes as long as reading the row",
    ),
    Target(
        "bandit",
        "the same with a step every 64 rows",
        "ucb-update, steps*",
        "*",
        most=2.5,
        reason="a window has room for all advantages of such a step, so all are journaled; of a batch, the last",
    ),
    Target("bandit", "CPU of a row of feedback", "ucb-update, one batch", most=10),
    Target("bandit", "a request to ucb-sample with 1,000 arms, median", "ucb-sample*a request", most=1000),
    Target("training", "tokens a second of policy-train, times those of a bare loop", "policy-train", "*", least=0.9),
    Target("sandbox", "calls a second in the default sandbox, times those without any", "sandbox auto", "*", least=0.4),
    Target(
        "sandbox",
        "gear-score with two workers, times one",
        "gear-score*",
        "*",
        least=1.7,
        cores=2,
        reason="comparing outputs takes a third of a worker's time, and one worker leaves it the other of two cores",
    ),
    Target("linear", "fused, one row: time, times F.linear's", "fused, M 1,*", "*", most=1.1),
    Target("linear", "fused, 4 rows", "fused, M 4,*", "*", most=0.5),
    Target("linear", "fused, 8 rows", "fused, M 8,*", "*", most=0.5),
    Target("linear", "fused, 128 rows", "fused, M 128,*", "*", most=1.25),
    Target("linear", "blocked, one row", "blocked, M 1,*", "*", most=2.2),
    Target("linear", "blocked, 32 rows", "blocked, M 32,*", "*", most=1.1),
    Target("linear", "blocked, 128 rows", "blocked, M 128,*", "*", most=1.1),
    Target("linear", "naive, any number of rows", "naive,*", "*"),
    Target("decode", "tokens a second of LayerCast, fused, times fp32's", "*fused, batch*", "fp32", least=0.9),
    Target("decode", "tokens a second of LayerCast, blocked, times fp32's", "*blocked, batch*", "fp32", least=0.9),
    Target("decode", "tokens a second of LayerCast, fused, times bf16's", "*fused, batch*", "bf16"),
    Target("decode", "resident memory of LayerCast's weights, times that of fp32", "*memory held", "*", most=0.51),
    Target("scenes", "scenes of 96x72 a second and core", "scenes of 96x72"),
    Target("scenes", "scenes of 320x240 a second and core", "scenes of 320x240"),
    Target("scenes", "scenes a second, times those of vectorised numpy", "scenes*", "numpy", least=20),
    Target("sprite", "captions a second, 32 at a time, times one by one", "captions, 32*", "*", least=4),
    Target("sprite", "share of training that waits for data", "training*", "all of it", most=0.5, gross=0.75),
    Target(
        "spygame",
        "a model's games a second, turns in one batch, times one by one",
        "a model*",
        "*",
        least=4,
        reason="pictures are read at the same cost either way, and decoding waits for the memory of keys and values",
    ),
    Target("spygame", "scripted games a second and core", "scripted games*", least=2000),
    Target("spygame", "CPU of spy-reward, times a bare orjson loop's", "spy-reward*", "*", most=1.5),
    Target(
        "judgefree",
        "tokens a second of two branches, times guidance one by one",
        "two branches*",
        "guidance*",
        least=5,
        reason="most of a step of 16 is arithmetic already, which a batch does not save; what it saves are calls",
    ),
    Target("judgefree", "time of a token of two branches, times plain decoding's", "two branches*", "plain*", most=2.2),
    Target("judgefree", "images a second of clip-score, times one by one", "clip*", "a row*", "images*"),
    Target("judgefree", "sentences a second of clip-score, times a loop's", "clip*", "transformers*", "sent*"),
    Target("vprune", "prefill at a quarter of visual FLOPs, times dense", "*a quarter: prefill", "dense", least=1.9),
    Target(
        "vprune", "speed-up of cut + FFN slicing, times what FLOPs say", "*cut and neurons: speed-up", "*", least=0.8
    ),
    Target("vprune", "decode at a quarter of visual FLOPs, times dense", "*a quarter: decode", "dense"),
    Target("vprune", "peak memory, times dense", "*peak memory", "dense", most=1),
    Target("kvquant", "time of attention by codes of 1 bit, times fp32 SDPA's", "attention, 1 bit", "*SDPA", most=0.5),
    Target(
        "kvquant",
        "time to quantize once, times two read passes",
        "quantize once*",
        "two*",
        most=5,
        reason="quantiles take a sort of a few tokens and more passes than extremes",
    ),
    Target("kvquant", "codes of 1 bit packed, G a second", "pack, 1 bit", least=0.5),
    Target("kvquant", "codes of 1 bit unpacked, G a second", "unpack, 1 bit", least=2),
    Target("kvquant", "peak memory beside the input, times one head's", "memory*", "*", most=1),
    Target("pmp", "a decoder of Mask2Former's size with the block, times without", "large*", "*", most=1.1, gross=1.5),
    Target(
        "pmp",
        "the small model's decoder with the block, times without",
        "small*",
        "*",
        most=1.1,
        gross=2,
        reason="with few pixels and 20 queries the block is one of four parts of a layer that cost about the same",
    ),
    Target("pmp", "a photo of 480x360 with the block, times without", "photo*", "*", most=1.5),
    Target("pmp", "training images a second, times those of transformers' Mask2Former", "updates*", "*", least=1),
    Target(
        "splat", "20,000 Gaussians there and back, one thread: speed, times torch's", "drawing, *", "torch", least=15
    ),
    Target("splat", "speed, times that of OpenSplat's CPU rasterizer", least=4, absent=NOT_RUN["OpenSplat"]),
    Target(
        "splat",
        "speed with two threads, times one",
        "drawing with two*",
        "*",
        least=1.7,
        cores=2,
        reason="two cores share memory: the table has what two processes get done that share nothing else",
    ),
    Target("splat", "share of a training step that is not drawing", "*not drawing", "*", most=0.6, gross=0.75),
    Target("splat", "PSNR of the plush doll after 600 steps", "plush*", unit="PSNR, dB", least=26, gross=23),
    Target("splat", "SSIM of the same", "plush*", unit="SSIM", least=0.875, gross=0.75),
    Target("splat", "CPU time of the same", "plush*", unit="CPU s"),
    Target("splat", "memory of the same", "plush*", unit="MB at most"),
]
