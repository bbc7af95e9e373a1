"""The tables and the picture of kvquant.py, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]

TASKS = {
    "passages": "Passages to repeat, of which the tokens of the passage are packed",
    "captions": "Captions of scenes, of which the tokens of the image are packed",
    "answers": "Questions about the same scenes with one right answer, the tokens of the image packed",
}
MEASURES = {
    "kl": "KL",
    "top1_frac": "same top-1",
    "perplexity": "perplexity",
    "f1": "F1",
    "right_frac": "right",
    "same_frac": "as dense",
}
KIVI = "group=32,along_v=channels"
THEIRS = {kind: f"{kind.replace('kivi', 'KIVI')}, all tokens" for kind in ("kivi", "hqq", "quanto", "fp8")}
NOTES = """\
Mean ± standard deviation over the sets. "Bits" are those of a key or value that is quantized, ranges and padding
included, "of the prompt" of all its tokens, those that stay counted with 16. KL, in nats, and the same top-1 are to the
dense cache at the same tokens. Peers quantize all tokens, text too; transformers' hold their scales in the model's
type, here fp32."""
#: colours (Okabe and Ito's) and marks of the picture
SHOWN = {
    "minmax": ("#000000", "o"),
    "calibquant": ("#D55E00", "s"),
    "quantile": ("#0072B2", "D"),
    "lloyd1": ("#009E73", "^"),
    "mse": ("#CC79A7", "v"),
    "KIVI's groups": ("#E69F00", "P"),
    "KIVI, all tokens": ("#E69F00", "x"),
    "hqq, all tokens": ("#56B4E9", "x"),
    "quanto, all tokens": ("#999999", "x"),
    "fp8, all tokens": ("#882255", "x"),
}


def family(cache: str) -> str:
    """The rule, or the peer, that a cache goes by.

    >>> family("minmax:bits=2,group=32,along_v=channels"), family("hqq:bits=1")
    ("KIVI's groups", 'hqq, all tokens')
    """
    kind, _, rest = cache.partition(":")
    return "KIVI's groups" if KIVI in rest else THEIRS.get(kind, kind)


def width(cache: str) -> int:
    """The bits of a code; 16 of what is dense."""
    kind, _, rest = cache.partition(":")
    fields = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    return {"dense": 16, "fp8": 8}.get(kind, int(fields.get("bits", 1)))


def named(cache: str) -> str:
    """A cache as the table has it."""
    return family(cache) + (", map (0, 3)" if "tau=" in cache else "")


def by_cache(rows: Sequence[Row], task: str) -> dict[str, list[Row]]:
    """The rows of each cache of a task, by seed: all of one plan and its weights, and of the same seeds."""
    found: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row["task"] == task), key=lambda row: row["seed"]):
        found.setdefault(row["cache"], []).append(row)
    first = next(iter(found.values()), [])
    alike = all(row[name] == first[0][name] for runs in found.values() for row in runs for name in ("plan", "weights"))
    seeds = {tuple(row["seed"] for row in runs) for runs in found.values()}
    if found and (not alike or len(seeds) != 1 or len(set(*seeds)) != len(*seeds)):
        raise SystemExit(f"{task}: rows are not of one plan and its weights, or caches differ in their seeds: not done")
    return found


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n - 1) as text."""
    return f"{mean(values):.3g} ± {stdev(values) if len(values) > 1 else 0.0:.2g}"


def table(runs_of: Mapping[str, Sequence[Row]]) -> list[str]:
    """A line for each cache, by the bits of its codes."""
    measures = [name for name in MEASURES if name in next(iter(runs_of.values()))[0]]
    names = ["codes", "cache", "bits", "of the prompt", *(MEASURES[name] for name in measures)]
    lines = [f"| {' | '.join(names)} |", "|---:|---" + "|---:" * (len(names) - 2) + "|"]
    for cache in sorted(runs_of, key=lambda name: -1 if name == "dense" else width(name)):
        runs = runs_of[cache]
        cells = [str(width(cache)), named(cache), *(f"{mean(r[b] for r in runs):.2f}" for b in ("bits", "prompt_bits"))]
        cells += [spread([row[name] for row in runs]) for name in measures]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def outcome(runs_of: Mapping[str, Sequence[Row]]) -> str:
    """What came out, in words: at each width the rule with the least KL beside minmax, and the best peer."""
    said = []
    kl = {cache: mean(row["kl"] for row in runs) for cache, runs in runs_of.items()}
    for bits in (1, 2, 4):
        own = {one: kl[one] for one in kl if width(one) == bits and family(one) not in THEIRS.values()}
        peers = {one: kl[one] for one in kl if width(one) == bits and family(one) in THEIRS.values()}
        if len(own) < 2:
            continue
        best = min(own, key=lambda one: own[one])
        text = f"at {bits} bit{'s' * (bits > 1)} {named(best)} has the least KL of the rules, {own[best]:.3g}"
        plain = next((one for one in own if family(one) == "minmax"), None)
        text += f" (minmax {own[plain]:.3g})" if plain not in (None, best) else ""
        if peers:
            peer = min(peers, key=lambda one: peers[one])
            text += f", and of the peers {named(peer)}, {peers[peer]:.3g}"
        said.append(text)
    sentence = "; ".join(said)
    return sentence[:1].upper() + sentence[1:] + "." if sentence else ""


def text(rows: Sequence[Row], picture: str) -> str:
    """The block of the page: for each task what was run, the table, what came out; then the picture."""
    parts = []
    for task, title in TASKS.items():
        runs_of = by_cache(rows, task)
        if not runs_of:
            parts.append(f"**{title}.** Its rows are not in this repository: no result is claimed.")
            continue
        runs = next(iter(runs_of.values()))
        cpu = sum(row["cpu_s"] for each in runs_of.values() for row in each) / 60
        seeds, packed = ", ".join(str(row["seed"]) for row in runs), mean(row["packed_frac"] for row in runs)
        parts.append(
            f"**{title}.** {runs[0]['model']}, {len(runs)} sets of {runs[0]['prompts']} prompts\n"
            f"(seeds {seeds}), {packed:.0%} of their tokens packed; {cpu:.0f} minutes of one thread."
        )
        parts += ["\n".join(table(runs_of)), outcome(runs_of)]
    parts.append(NOTES)
    parts.append(f"![KL to the dense cache, and what answers are worth, over the bits of a key or value]({picture})")
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel of KL over bits for each task that has rows, and of F1 and right answers where there are."""
    from matplotlib.figure import Figure

    panels = [(task, "kl") for task in TASKS if by_cache(rows, task)]
    panels += [(task, name) for task, name in (("captions", "f1"), ("answers", "right_frac")) if (task, "kl") in panels]
    rows_of_panels = -(-len(panels) // 3)
    figure = Figure(figsize=(12, 3.9 * rows_of_panels + 0.7), layout="constrained")
    places = figure.subplots(rows_of_panels, 3, squeeze=False).flatten()
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (task, measure) in zip(places, panels, strict=False):
        runs_of = by_cache(rows, task)
        for name, (colour, mark) in SHOWN.items():
            own = [runs for cache, runs in runs_of.items() if family(cache) == name and "tau=" not in cache]
            if own:
                points = sorted((mean(r["bits"] for r in runs), mean(r[measure] for r in runs)) for runs in own)
                axes.plot(*zip(*points, strict=True), marker=mark, color=colour, label=name, linewidth=0.9)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axes.set_xlabel("bits of a key or value")
        axes.set_title(f"{task}: {MEASURES[measure]}")
        axes.spines[["top", "right"]].set_visible(False)
        if measure == "kl":
            axes.set_yscale("log")
        elif "dense" in runs_of:
            axes.axhline(mean(row[measure] for row in runs_of["dense"]), color="0.5", linewidth=0.8, linestyle=":")
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
