"""One game on the page: what each side saw, who said what and thought what, who voted for whom, what it was worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from toolroll.errors import RowError
from toolroll.models.images import data_url, folder_of
from toolroll.run.page import safe
from toolroll.spygame.prompts import NO_CLUE
from toolroll.spygame.rewards import NA, Tally, Vote
from toolroll.spygame.stats import says_nothing

STYLE = """\
:root { --spy: #b3261e; --civilian: #1b5fae; --spy-back: #b3261e14; --back: #8881; --good: #2e7d32; }
@media (prefers-color-scheme: dark) {
  :root { --spy: #ff8a80; --civilian: #8ab8ff; --spy-back: #ff8a8020; --good: #81c995; --soft: #999; }
}
body { max-width: 68rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1.4rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.3rem 0 .3rem; }
p { margin: .3rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .3rem; margin-top: 1rem; }
nav a { border: 1px solid currentcolor; border-radius: 5px; padding: 0 .45rem; text-decoration: none; }
.spy { color: var(--spy); } .civilian { color: var(--civilian); }
.good { color: var(--good); } .bad, .failed { color: var(--spy); } .none { color: var(--soft); }
.badge { border: 1px solid currentcolor; border-radius: 1em; font-size: .8rem; font-weight: 600; padding: .1rem .6rem;
  margin-left: .5rem; white-space: nowrap; vertical-align: middle; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin: .8rem 0; }
figure { margin: 0; }
figcaption { font-size: .87rem; margin-top: .2rem; }
.frame { position: relative; display: inline-block; line-height: 0; border: 1px solid var(--line); border-radius: 4px;
  overflow: hidden; }
.frame img { display: block; max-width: 100%; min-width: 15rem; height: auto; image-rendering: auto; }
.frame i { position: absolute; outline: 2px solid var(--mark); box-shadow: 0 0 0 3px #0006; }
.lacking { display: grid; place-items: center; width: 15rem; height: 9rem; line-height: 1.4; padding: 0 1rem;
  text-align: center; background: var(--back); color: var(--soft); }
.said { display: grid; grid-template-columns: minmax(9rem, max-content) minmax(0, 1fr); gap: .1rem .8rem;
  margin: .2rem 0; }
.said > div { padding: .3rem .6rem; border-radius: 6px; background: var(--back); overflow-wrap: anywhere; }
.said > div.of-spy { background: var(--spy-back); }
.said > b { padding: .3rem 0; white-space: nowrap; }
.said details { border: 0; margin: .1rem 0 0; padding: 0; font-size: .87rem; }
.said summary { color: var(--soft); }
.bar { display: inline-block; height: .7em; background: var(--civilian); border-radius: 2px; margin-left: .5rem; }
tr.of-spy .bar { background: var(--spy); }
td.left, th.left { text-align: left; }
.wide { font-size: .93rem; } th, td { padding: .25rem .6rem; }
@media (max-width: 40rem) { .said { grid-template-columns: minmax(0, 1fr); } .said > b { padding-bottom: 0; } }
"""


@dataclass(slots=True)
class Shown:
    """A game as the page has it. `why` tells why it came to no end; else there are its votes, counted, and a winner."""

    number: int
    seen: Any
    place: str
    votes: Sequence[tuple[int | str, Vote]] = ()
    counted: Tally | None = None
    winner: str = ""
    why: str = ""

    @property
    def title(self) -> str:
        """What names it."""
        name = None if self.seen is None else self.seen.id
        return f"game {self.number + 1}" if name is None else str(name)

    @property
    def colour(self) -> str:
        """The class of its colour: that of who won."""
        return {"spy": "spy", "civilians": "civilian"}.get(self.winner, "none")

    @property
    def outcome(self) -> str:
        """How it ended."""
        if self.counted is None:
            return "failed"
        accused = self.counted.accused
        if accused is None:
            how = "no player has most votes"
        else:
            how = "the spy is found" if accused == self.seen.spy else f"player {accused} is taken for the spy"
        return f"{how}: {'nobody wins' if self.winner == 'nobody' else f'{self.winner} won'}"


@dataclass(slots=True)
class Album:
    """Pictures for the page. `folder`: where they are, else in that of the games' file. `told` hears what is missing.

    Without `images` there are none. The latest ones are kept, as games share them.
    """

    folder: Path | None = None
    images: bool = True
    told: Callable[[str, str], None] = lambda _why, _place: None
    _known: dict[Path, str | None] = field(default_factory=dict)

    def picture(self, name: str, place: str) -> str | None:
        """An image as a data: URL, None where it cannot be shown."""
        path = (self.folder or folder_of(place)) / name
        if path not in self._known:
            if len(self._known) >= 64:
                self._known.pop(next(iter(self._known)))
            try:
                self._known[path] = data_url(path)
            except RowError as error:
                self.told(error.why, place)
                self._known[path] = None
        return self._known[path]


def page_of(game: Shown, album: Album) -> str:
    """The part of the page on one game."""
    seen = game.seen
    sample = f' <span class="soft">sample {seen.sample}</span>' if seen is not None and seen.sample else ""
    badge = f'<span class="badge {game.colour}">{safe(game.outcome)}</span>'
    parts = [f'<section>\n<h2 id="game-{game.number}">{safe(game.title)}{sample} {badge}</h2>\n']
    if game.why:
        parts.append(f'<p class="failed">{safe(game.why)}</p>\n')
    if seen is not None:
        parts += [_about(seen), _pictures(game, album), _clues(seen), _votes(game), _worth(game)]
    return "".join(parts) + "</section>\n"


def _about(seen: Any) -> str:
    """Who plays, in a line."""
    facts = [] if seen.spy is None else [f"player {seen.spy} is the spy"]
    facts += [f"{side}: {name}" for side, name in (("spy", seen.spy_model), ("civilians", seen.civ_model)) if name]
    facts += [f"policy {seen.policy_version}"] if seen.policy_version else []
    facts += [f"seed {seen.seed}"] if seen.seed is not None else []
    return f'<p class="soft">{safe(", ".join(facts))}</p>\n' if facts else ""


# --- pictures


def _pictures(game: Shown, album: Album) -> str:
    """What the civilians saw, and what the spy did."""
    seen = game.seen
    if not album.images:
        return '<p class="soft">Pictures are left out (--no-images).</p>\n'
    sides = (("civilian", "What the civilians see", "original"), ("spy", "What the spy sees", _of_spy(seen)))
    figures = []
    for role, caption, which in sides:
        name = next((turn.images[0] for turn in seen.turns or () if turn.role == role and turn.images), None)
        if name is None and which is not None:
            name = getattr(seen, which)
        if name is None and seen.original is None and not any(turn.images for turn in seen.turns or ()):
            return ""  # a game that says nothing of pictures
        boxes = _boxes(seen, which) if seen.spy_image == "modified" else ""
        figures.append(_figure(role, caption, name, boxes, album, game.place))
    return f'<div class="pictures">\n{"".join(figures)}</div>\n'


def _of_spy(seen: Any) -> str | None:
    """The field with the spy's picture; None where that was empty and may have no file."""
    return {"same": "original", "blank": None}.get(seen.spy_image, "modified")


def _figure(role: str, caption: str, name: str | None, boxes: str, album: Album, place: str) -> str:
    url = album.picture(name, place) if name is not None else None
    if url is not None:
        frame = f'<div class="frame"><img src="{safe(url)}" alt="{safe(caption)}">{boxes}</div>'
    else:
        lacking = "An empty picture" if name is None else f"Not shown: {name}"
        frame = f'<div class="frame"><div class="lacking">{safe(lacking)}</div></div>'
    return f'<figure>{frame}\n<figcaption class="{role}">{safe(caption)}</figcaption></figure>\n'


def _boxes(seen: Any, which: str | None) -> str:
    """Marks around what differs, where the pair says where that is."""
    if which is None or seen.boxes is None or not (seen.width and seen.height):
        return ""
    marks = []
    for box in getattr(seen.boxes, which):
        if len(box) == 4:
            left, top, right, bottom = box
            places = {"left": left, "width": right - left}, {"top": top, "height": bottom - top}
            style = ";".join(
                f"{name}:{100 * pixels / whole:.2f}%"
                for along, whole in zip(places, (seen.width, seen.height), strict=True)
                for name, pixels in along.items()
            )
            marks.append(f'<i style="{style}"></i>')
    return "".join(marks)


# --- what was said


def _clues(seen: Any) -> str:
    """The clues, round by round, each with what its player thought folded away."""
    parts = []
    turns = [turn for turn in seen.turns or () if turn.stage == "clue"]
    for number, group in groupby(turns, key=lambda turn: turn.round):
        parts.append(f"<h3>Round {'?' if number is None else number}</h3>\n")
        said = []
        for turn in group:
            silent = says_nothing(turn.clue)
            clue = f"<span class='none'>{NO_CLUE}</span>" if silent else safe(turn.clue)
            said.append(_said(_who(turn.player, turn.role), turn.role, clue + _thoughts(turn, silent)))
        parts.append(f'<div class="said">\n{"".join(said)}</div>\n')
    return "".join(parts)


def _votes(game: Shown) -> str:
    """Who voted for whom, whether that was right, what it was worth; in a game without an end, as far as it got."""
    turns = [turn for turn in game.seen.turns or () if turn.stage == "decision"]
    if not game.votes:
        return ""
    said = []
    for number, (voter, vote) in enumerate(game.votes):
        role = "judge" if voter == "judge" else "spy" if voter == game.seen.spy else "civilian"
        turn = turns[number] if number < len(turns) else None
        told = _vote(vote, game) + _value(game.seen, "decision", number)
        said.append(_said(_who(voter, role), role, told + ("" if turn is None else _thoughts(turn, vote is None))))
    return f'<h3>Votes</h3>\n<div class="said">\n{"".join(said)}</div>\n'


def _who(player: int | str | None, role: str) -> str:
    if role == "judge":
        return "Judge"
    return f"Player {'?' if player is None else player}{', the spy' if role == 'spy' else ''}"


def _said(who: str, role: str, told: str) -> str:
    of_spy = ' class="of-spy"' if role == "spy" else ""
    colour = ' class="spy"' if role == "spy" else ""
    return f"<b{colour}>{safe(who)}</b><div{of_spy}>{told}</div>\n"


def _thoughts(turn: Any, whole: bool) -> str:
    """What nobody else reads, folded; the `whole` response where no answer was found in it."""
    name, text = ("all that was written", turn.response) if whole else ("reasoning", turn.thinking)
    return f"\n<details><summary>{name}</summary><pre>{safe(text)}</pre></details>" if text.strip() else ""


def _vote(vote: Vote, game: Shown) -> str:
    """A vote against the truth."""
    if vote == NA:
        return '<span class="none">N/A: nobody</span>'
    if not isinstance(vote, int) or not 1 <= vote <= game.seen.n_players:
        return f'<span class="bad">not valid{"" if vote is None else safe(f": {vote}")}</span>'
    right = vote == game.seen.spy
    truth = '<span class="good">&#10003; the spy</span>' if right else '<span class="bad">&#10007; not the spy</span>'
    return f"player {vote} {truth}"


def _value(seen: Any, of: str, number: int) -> str:
    """Reward and advantage of a vote, where the row has them."""
    facts = [
        f"{name} {_number(value)}"
        for name, values in (("reward", seen.rewards), ("advantage", seen.advantages))
        if (value := _at(values, of, number)) is not None
    ]
    return f' <span class="soft">({", ".join(facts)})</span>' if facts else ""


def _at(values: dict[str, list[float]] | None, of: str, number: int) -> float | None:
    found = (values or {}).get(of) or []
    return found[number] if number < len(found) else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


# --- what it came to


def _worth(game: Shown) -> str:
    """For each player: votes, and what its clues were worth."""
    seen, counted = game.seen, game.counted
    if counted is None:
        return ""
    columns = [
        (title, values)
        for title, values in (("reward of clues", seen.rewards), ("advantage", seen.advantages))
        if (values or {}).get("clue")
    ]
    names = "".join(f"<th>{title}</th>" for title, _ in columns)
    rows = []
    most = max(1, *counted.counts)
    for number, votes in enumerate(counted.counts):
        spy = number + 1 == seen.spy
        cells = "".join(f"<td>{_number(_at(values, 'clue', number))}</td>" for _, values in columns)
        bar = f'<span class="bar" style="width:{8 * votes / most:.2f}em"></span>' if votes else ""
        rows.append(
            f"<tr{' class=of-spy' if spy else ''}><td>{_who(number + 1, 'spy' if spy else 'civilian')}</td>{cells}"
            f'<td class="left">{votes}{bar}</td></tr>\n'
        )
    odd = [f"{count} {name}" for count, name in ((counted.na, "for nobody"), (counted.invalid, "not valid")) if count]
    more = [f"Besides, {' and '.join(odd)}."] if odd else []
    if seen.baselines:
        means = ", ".join(f"{role} {_number(value)}" for role, value in seen.baselines.items())
        more.append(f"Advantages of clues are against the running mean of their role's rewards: {means}.")
    told = f'<p class="soft">{safe(" ".join(more))}</p>\n' if more else ""
    head = f'<tr><th>player</th>{names}<th class="left">votes got</th></tr>\n'
    return f'<h3>Tally</h3>\n<div class="wide"><table>\n{head}{"".join(rows)}</table></div>\n{told}'
