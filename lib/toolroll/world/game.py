r"""The odd-one-out game of Vision-Zero in words: prompts, clues and votes, and turns to learn it from.

A player who sees a picture says something of it; one of the players, the spy, has another picture. Answers stand in
\boxed{}, as the game wants them. A voter first says of every clue whether it fits, so that a vote has its reasons.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolroll.world.constants import COLORS, SHAPES
from toolroll.world.draws import Draws
from toolroll.world.edits import another
from toolroll.world.questions import Asked, random_solid
from toolroll.world.scene import Scene
from toolroll.world.words import ATTRIBUTES, mentions, phrase, with_article

FEWEST, MOST = 3, 5  #: players in a turn that is made up


def clue_of(words: str) -> str:
    """A clue about an object."""
    return f"There is {with_article(words)}."


CLUE = "You are player {player} of {players}, {role}.\n{said}\nGive a new clue about your picture in \\boxed{{}}."
VOTE = (
    "{said}\nOne of {players} players has another picture. Compare each clue with yours, then vote in \\boxed{{}}: "
    "its number or N/A."
)
FIRST = "Nobody has said anything yet: yours is the first clue."


def transcript(rounds: Sequence[Sequence[str]]) -> str:
    """The clues so far, by round and player.

    >>> print(transcript([["There is a cube.", "There is a ball."], ["There is a red cube."]]))
    Round 1:
    Player 1: There is a cube.
    Player 2: There is a ball.
    <BLANKLINE>
    Round 2:
    Player 1: There is a red cube.
    """
    told = [
        "\n".join([f"Round {number}:", *(f"Player {player}: {clue}" for player, clue in enumerate(clues, 1))])
        for number, clues in enumerate(rounds, 1)
    ]
    return "\n\n".join(told) if told else FIRST


def clue_prompt(player: int, players: int, rounds: Sequence[Sequence[str]], *, spy: bool) -> str:
    """What a player is asked: its role, the clues so far, and to give one."""
    role = "spy" if spy else "civilian"
    return CLUE.format(player=player, players=players, role=role, said=transcript(rounds))


def vote_prompt(players: int, rounds: Sequence[Sequence[str]]) -> str:
    """What a voter is asked: all clues, and who of the players is the spy."""
    return VOTE.format(players=players, said=transcript(rounds))


def vote_answer(scene: Scene, rounds: Sequence[Sequence[str]]) -> str:
    """Each clue held against the picture, then a vote for the player with most that do not fit; N/A for a tie."""
    wrong: dict[int, int] = {}
    told = []
    for clues in rounds:
        for player, clue in enumerate(clues, 1):
            good = fits(clue, scene)
            told.append(f"{player} {'fits' if good else 'not'}")
            wrong[player] = wrong.get(player, 0) + (not good)
    most = max(wrong.values(), default=0)
    suspects = [player for player, number in wrong.items() if number == most]
    vote = str(suspects[0]) if most and len(suspects) == 1 else "N/A"
    return f"{', '.join(told)}. \\boxed{{{vote}}}"


def fits(clue: str, scene: Scene) -> bool:
    """Whether all that a clue names is in a scene."""
    return all(any(one.fits(solid) for solid in scene.solids) for one in mentions(clue))


def civilian_clue(scene: Scene, said: Sequence[str], draws: Draws) -> str:
    """A clear clue: three or four attributes of an object that nobody named yet, where there is one."""
    named = [one for clue in said for one in mentions(clue)]
    fresh = [solid for solid in scene.solids if not any(one.fits(solid) for one in named)]
    solid = draws.pick(fresh or scene.solids)
    gone = draws.pick((None, None, "size", "material"))
    return clue_of(phrase(solid, [name for name in ATTRIBUTES if name != gone]))


def spy_clue(scene: Scene, said: Sequence[str], draws: Draws) -> str:
    """A vague clue: colour or shape of what others named and the spy sees too, else of anything it sees."""
    named = [one for clue in said for one in mentions(clue)]
    shared = [solid for solid in scene.solids if any(one.fits(solid) for one in named)]
    solid = draws.pick(shared or scene.solids) if scene.solids else random_solid(draws)
    return clue_of(phrase(solid, draws.pick((("color",), ("shape",), ("color", "shape")))))


def altered(scene: Scene, draws: Draws) -> Scene:
    """The scene with another colour and shape for two objects, as in the game's pairs."""
    solids = list(scene.solids)
    for number in draws.shuffled(range(len(solids)))[:2]:
        old = solids[number]
        color, shape = another(tuple(COLORS), old.color, draws), another(SHAPES, old.shape, draws)
        solids[number] = old.but(color=color, shape=shape)
    return scene.with_solids(solids)


def played(scene: Scene, others: Scene, spy: int, players: int, turns: int, draws: Draws) -> list[list[str]]:
    """The clues of the first turns of a game: the spy sees `scene`, all others see `others`."""
    rounds: list[list[str]] = []
    said: list[str] = []
    for turn in range(turns):
        player = turn % players + 1
        if player == 1:
            rounds.append([])
        if player == spy:
            vague = not scene.solids or draws.below(3)
            clue = spy_clue(scene, said, draws) if vague else civilian_clue(scene, said, draws)
        else:
            clue = civilian_clue(others, said, draws)
        rounds[-1].append(clue)
        said.append(clue)
    return rounds


def clue_turn(scene: Scene, draws: Draws) -> Asked:
    """A turn in which a player who sees this scene gives a clue; the spy's may be empty."""
    players = draws.whole(FEWEST, MOST)
    player, spy = draws.whole(1, players), draws.whole(1, players)
    turns = player - 1 + (players if draws.below(3) == 0 else 0)
    if player == spy or not scene.solids:
        seen = altered(scene, draws) if scene.solids else scene.with_solids([random_solid(draws) for _ in range(4)])
        rounds = played(scene, seen, player, players, turns, draws)
        answer = spy_clue(scene, [clue for clues in rounds for clue in clues], draws)
        return Asked("clue", clue_prompt(player, players, rounds, spy=True), f"\\boxed{{{answer}}}")
    rounds = played(altered(scene, draws), scene, spy, players, turns, draws)
    answer = civilian_clue(scene, [clue for clues in rounds for clue in clues], draws)
    return Asked("clue", clue_prompt(player, players, rounds, spy=False), f"\\boxed{{{answer}}}")


def vote_turn(scene: Scene, draws: Draws) -> Asked:
    """A vote after one or two rounds, by somebody who sees this scene."""
    players = draws.whole(FEWEST, MOST)
    rounds = played(altered(scene, draws), scene, draws.whole(1, players), players, players * draws.whole(1, 2), draws)
    return Asked("vote", vote_prompt(players, rounds), vote_answer(scene, rounds))


def game_turns(scene: Scene, draws: Draws) -> list[Asked]:
    """A clue, and a vote where there is something to compare."""
    return [clue_turn(scene, draws), *([vote_turn(scene, draws)] if scene.solids else [])]
