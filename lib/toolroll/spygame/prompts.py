"""What players are told, in words: the templates of each kind of pictures, and how what was said is laid out.

A template is filled with these fields, all of them text: player, players, role (spy, civilian or judge), role_text (the
same in a sentence or two), round, rounds, difference (how the odd picture differs), said (what was said so far) and
examples (of clues).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from toolroll.models.answers import fill
from toolroll.spygame.game import Ask, Remark, Rules

NO_CLUE = "(no clue)"  #: what the others read in place of a clue that was none
DOMAINS = ("scenes", "charts", "photos", "blank")

_DIFFERENCE = {
    "scenes": "The pictures show plain solids on a floor. In the odd picture some of them have been exchanged for "
    "solids of another colour and shape; these stand where the first ones stood.",
    "charts": "The pictures show a chart of some numbers. In the odd picture two of the values have changed places.",
    "photos": "The pictures show a photo. In the odd picture some object or part of it was taken away, replaced or "
    "coloured differently.",
    "blank": "The odd picture shows nothing at all: it is an empty area of one colour.",
}
_EXAMPLES = {
    "scenes": (
        "A small metal ball lies to the right of everything else.",
        "Two of the cubes have the same colour.",
        "The thing nearest to me is brown and does not shine.",
    ),
    "charts": (
        "The second bar is the tallest one.",
        "The line falls from spring to autumn.",
        "The smallest share is less than half of the largest.",
    ),
    "photos": (
        "A dark bag hangs over the back of the chair.",
        "There are more trees on the left than on the right.",
        "The roof is of another red than the door.",
    ),
}
_ROLES = {
    "spy": "You are the SPY: yours is the odd picture. The others do not know who you are. Find out from their clues "
    "what their picture shows, and say something that fits it, or that fits most pictures, so that nobody suspects "
    "you.",
    "blank": "You are the SPY: your picture is empty, theirs is not. Find out from their clues what it is about, think "
    "of what such a picture has in it and how this would look, and say something new that is likely to be true of "
    "theirs, so that nobody suspects you.",
    "civilian": "You are a CIVILIAN: yours is the picture that most players have. Give a clue that is clear, exact and "
    "true of your picture, about something that has not been told yet, so that the others see you are not the spy.",
}

CLUE = """\
You are player {player} of {players} in a game of hidden pictures. Everybody looks at a picture that the \
others do not see. All have the same picture but for one player, the spy, who has an odd one. {difference}

{role_text}

This is round {round} of {rounds}. In each, the players tell one sentence about their pictures, one after the \
other. In the end they vote on who is the spy, and to get votes costs points.

{said}

It is your turn. Think first; nobody else will read your thoughts. Then write the sentence that the others are \
to read in \\boxed{{}}: one sentence about what is in the picture and how its parts relate, not about the \
game, and nothing that somebody has said before. Such as:
{examples}
"""

VOTE = """\
You are player {player} of {players} in a game of hidden pictures, and it is time to vote. Everybody looks at \
a picture that the others do not see. All have the same picture but for one player, the spy, who has an odd \
one. {difference}

{role_text}

{said}

Compare the clues with your picture. Look for what contradicts it or the other clues, for what is vague, \
evasive or misleading. Think first; nobody will read your thoughts. Then write the number of the player whom \
you take for the spy in \\boxed{{}}, or \\boxed{{N/A}} if you cannot tell: that costs less than to accuse the \
wrong player.
"""
_VOTING = {
    "civilian": "You are a CIVILIAN: yours is the picture that most players have.",
    "spy": "You are the SPY: yours is the odd picture. Do not name yourself.",
}

JUDGE = """\
{players} players had a picture each, and gave clues about it in turn. All had the picture that \
you see but for one player, the spy, who had an odd one. {difference}

{said}

Who is the spy? Compare the clues with the picture. Look for what contradicts it or the other clues, for what \
is vague, evasive or misleading. Think first. Then write the number of the player in \\boxed{{}}, or \
\\boxed{{N/A}} if you cannot tell.
"""


@dataclass(frozen=True, slots=True)
class Templates:
    """The text of a clue's prompt and of a vote's; None for ours."""

    clue: str | None = None
    vote: str | None = None

    def prompt(self, ask: Ask, rules: Rules, domain: str, *, kind: str) -> str:
        """What a player is asked, in words. `domain` is one of DOMAINS, `kind` what the pictures show at all.

        RowError where a template names a field that there is not.
        """
        if ask.stage == "clue":
            template = self.clue if self.clue is not None else CLUE
            role_text = _ROLES["blank" if (domain, ask.role) == ("blank", "spy") else ask.role]
        else:
            template = self.vote if self.vote is not None else JUDGE if ask.role == "judge" else VOTE
            role_text = _VOTING.get(ask.role, "")
        fields = {
            "player": "" if ask.player is None else str(ask.player),
            "players": str(rules.n_players),
            "round": "" if ask.round is None else str(ask.round),
            "rounds": str(rules.rounds),
            "role": ask.role,
            "role_text": role_text,
            "difference": _DIFFERENCE[domain],
            "said": said(ask.heard),
            "examples": "\n".join(f"\\boxed{{{text}}}" for text in _EXAMPLES[kind]),
        }
        return fill(template, fields)


def said(heard: Sequence[Remark]) -> str:
    """What was said so far, round by round; of own turns also what was thought, each line of that behind a >.

    >>> print(said([Remark(1, 1, "A cube.", None), Remark(1, 2, None, "What now?"), Remark(2, 1, "A ball.", None)]))
    Round 1:
    Player 1: A cube.
    Player 2: (no clue)
    > What now?
    <BLANKLINE>
    Round 2:
    Player 1: A ball.
    """
    if not heard:
        return "Nobody has said anything yet: yours is the first clue."
    rounds = []
    for number, remarks in groupby(heard, key=lambda remark: remark.round):
        lines = [f"Round {number}:"]
        for remark in remarks:
            lines.append(f"Player {remark.player}: {NO_CLUE if remark.clue is None else remark.clue}")
            lines += [f"> {line}" for line in (remark.thinking or "").splitlines() if line.strip()]
        rounds.append("\n".join(lines))
    return "\n\n".join(rounds)
