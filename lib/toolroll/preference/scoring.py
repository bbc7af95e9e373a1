"""How texts are scored by images: the options of commands that do it, and rows scored many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from toolroll.preference.scores import Job, Scorer, TextScore
    from toolroll.run.log import Log

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """The values of the options; `open` loads the encoder."""

    clip: str = "glance"
    measure: str = "cos"
    agg: str = "mean"
    min_chars: int = 4
    clip_batch: int = 32
    clip_cache: str | None = None
    clip_device: str = "auto"
    trust_clip_code: bool = False

    def open(self, log: Log) -> Scorer:
        """Load the encoder."""
        from toolroll.io.cache import Cache
        from toolroll.models.device import choose_device
        from toolroll.preference.encoders import GLANCE, open_encoder
        from toolroll.preference.scores import Scorer

        cache = None if self.clip_cache is None else Cache(self.clip_cache)
        dtype = "float32" if self.clip_device == "cpu" else "auto"
        device = choose_device(self.clip_device, dtype, option="--clip-device")
        encoder = open_encoder(self.clip, device, trust_remote_code=self.trust_clip_code, notify=log.info)
        if self.clip == GLANCE:
            log.note("model glance, which knows rendered scenes and no photos")
        return Scorer(
            encoder,
            measure=self.measure,  # type: ignore[arg-type]
            aggregate=self.agg,  # type: ignore[arg-type]
            min_chars=self.min_chars,
            batch=self.clip_batch,
            cache=cache,
        )


def scoring_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `ScoringOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Scores", show_default=True, **settings)

    return [
        make(
            "--clip",
            default="glance",
            metavar="NAME",
            help="The encoder: a folder or hub id of a CLIP or SigLIP model, `open_clip:MODEL/TAG`, or `glance`, the "
            "embedded one, for rendered scenes only.",
        ),
        make(
            "--measure",
            type=click.Choice(["cos", "clipscore"]),
            default="cos",
            help="100 times the cosine, or 2.5 times it where it is above 0.",
        ),
        make(
            "--agg",
            type=click.Choice(["mean", "min", "length-weighted", "last"]),
            default="mean",
            help="The score of a text by those of its sentences.",
        ),
        make(
            "--min-chars",
            type=click.IntRange(min=0),
            default=4,
            help="What is shorter belongs to the sentence before it.",
        ),
        make("--clip-batch", type=click.IntRange(min=1), default=32, help="Images at a time."),
        make("--clip-cache", type=click.Path(), metavar="FILE", help="Keep the vectors of images in this file."),
        make("--clip-device", default="auto", help="auto (the freest GPU, else the CPU), cpu, cuda or cuda:N."),
        make("--trust-clip-code", is_flag=True, help="Let the encoder's own repository run its Python code here."),
    ]


def scored(
    items: Sequence[T],
    scorer: Callable[[], Scorer],
    job_of: Callable[[T], Job | None],
    add: Callable[[T, list[TextScore]], T],
    fail: Callable[[T, str], T],
) -> list[T]:
    """Score items, as many images at a time as the scorer takes; the items in order.

    `scorer` gives the scorer, and is asked when there is something to score. `job_of` may raise RowError; with None an
    item stays as it is.
    """
    from toolroll.errors import RowError

    made = list(items)
    jobs: list[tuple[int, Job]] = []
    for place, item in enumerate(items):
        try:
            job = job_of(item)
        except RowError as error:
            made[place] = fail(item, error.why)
        else:
            jobs += [] if job is None else [(place, job)]
    size = scorer().batch if jobs else 1
    for start in range(0, len(jobs), size):
        some = jobs[start : start + size]
        for (place, _), result in zip(some, scorer().score([job for _, job in some]), strict=True):
            item = made[place]
            made[place] = fail(item, str(result)) if isinstance(result, RowError) else add(item, result)
    return made


def image_paths(view: Any, place: str, folder: Path | None) -> list[Path]:
    """The files of a row's images, in `folder` or that of the row's file. RowError where there is none."""
    from toolroll.errors import RowError
    from toolroll.models.images import image_files

    found = image_files(view, place, folder)
    if not found:
        raise RowError("no `images` and no `image`")
    return found
