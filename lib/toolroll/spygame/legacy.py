"""Rewards that the authors' code names, and that their game does not use; for comparison with runs that did.

`clevr_clue_format` looks for words; the lists of words here are ours, so its numbers differ from theirs in detail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from toolroll.spygame.rewards import Vote, accuracy, tally

NAMES = (
    "clevr_decision_accuracy",
    "clevr_decision_format",
    "clevr_clue_format",
    "clevr_clue_format_with_votes",
    "calculate_game_rewards",
)
_THIN = 10  # characters of reasoning that count for none
_CATEGORIES = (  # words of a clue, and what the first of them earns
    (0.20, r"\b(?:gr[ae]y|red|blue|green|brown|purple|cyan|yellow)\b"),
    (0.25, r"\b(?:cubes?|blocks?|spheres?|balls?|cylinders?)\b"),
    (0.20, r"\b(?:left|right|front|behind|back|cent(?:re|er)|middle|corner|top|bottom)\b"),
    (0.15, r"\b(?:small|large|big|tiny|little)\b"),
    (0.10, r"\b(?:between|next to|near|beside|above|below|in front of|left of|right of)\b"),
)
_COMPARED = (r"\b\w+er than\b", r"\b(?:more|fewer|less) \w+ than\b", r"\bthe same \w+ as\b")
_LEAKS = ("spy", "odd", "vote", "player", "game", "civilian")
_VAGUE = ("something", "some object", "a thing", "things", "maybe", "kind of", "sort of")


def decision_accuracy(vote: Vote, spy: int, *, of_spy: bool = False) -> float:
    """clevr_decision_accuracy: civilians 1, -0.5, -1; the spy 0.5 for another, 0.2 for nobody, -1 for itself."""
    return accuracy(vote, spy, of_spy=of_spy)


def decision_format(text: str) -> float:
    r"""clevr_decision_format: how neat an answer in tags is, 0 .. 1; an answer in a box has no tags.

    >>> decision_format("<think>Player 3 names a cube.</think><answer>3</answer>"), decision_format("\\boxed{3}")
    (1.0, 0.0)
    """
    thought = re.search(r"<think>(.*?)</think>", text, re.DOTALL)
    answered = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    if thought is None or answered is None:
        return 0.0 if thought is None and answered is None else 0.2
    answer = answered[1].strip()
    numbers = re.findall(r"\d+", answer)
    if len(thought[1].strip()) < _THIN or len(numbers) > 1 or any(len(number) > 1 for number in numbers):
        return 0.3
    if re.fullmatch(r"\d|N/?A", answer, re.IGNORECASE):
        return 1.0
    if not numbers:
        return 0.3
    return 0.9 if len(answer.split()) <= 2 else 0.7


def clue_format(text: str, earlier: Sequence[str] = (), *, votes: int | None = None, voters: int = 0) -> float:
    """clevr_clue_format, and with `votes` clevr_clue_format_with_votes: what a clue speaks of, 0 .. 1, less votes.

    `text` is the whole response, `earlier` the clues before it, `votes` how many of `voters` players voted for its
    player.

    >>> clue_format("<think>I see a red cube.</think><answer>A red cube is left of a ball.</answer>")
    1.0
    """
    worth = _worth(text, earlier)
    if votes is None or voters < 2:
        return worth
    return worth - 0.6 * votes / (voters - 1)


def _worth(text: str, earlier: Sequence[str]) -> float:
    thought = re.search(r"<think>(.*?)</think>", text, re.DOTALL)
    answered = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    if thought is None or answered is None:
        return 0.0
    clue = answered[1].strip().lower()
    if len(thought[1].strip()) < _THIN:
        return 0.1
    if len(re.findall(r"[.!?]", clue)) > 2:
        return 0.2
    found = [worth for worth, words in _CATEGORIES if re.search(words, clue)]
    score = 0.2 + sum(found) + 0.1 * max(0, len(found) - 1)
    score += 0.05 * sum(bool(re.search(pattern, clue)) for pattern in _COMPARED)
    score += 0.05 * all(re.search(words, clue) is not None for _, words in _CATEGORIES[:2])
    score -= max((_repeated(clue, other.lower()) for other in earlier), default=0.0)
    score -= 0.5 * sum(bool(re.search(rf"\b{word}", clue)) for word in _LEAKS)
    score -= 0.08 * sum(phrase in clue for phrase in _VAGUE)
    score -= 0.1 * (not 4 <= len(clue.split()) <= 20)
    return min(1.0, max(0.0, score))


def _repeated(clue: str, other: str) -> float:
    """What is taken off for saying again what another said."""
    alike = SequenceMatcher(None, clue, other).ratio()
    loss = 0.8 if alike >= 0.7 else 0.4 if alike >= 0.5 else 0.2 if alike >= 0.3 else 0.0
    one, two = set(clue.split()), set(other.split())
    return loss + 0.5 * (bool(one | two) and len(one & two) / len(one | two) >= 0.6)


def game_rewards(votes: Sequence[Vote], spy: int) -> list[float]:
    """calculate_game_rewards: of players 1 to n, all of whom vote; `votes[i]` is that of player i + 1. In [-1, 1].

    With N players, r votes received: a civilian gets 1 for naming the spy, else -1, less 0.6 r / (N - 1). The spy gets
    1 - r / (N - 1) + 0.5 m / (N - 1), less 1 for naming itself; m counts votes for other players, its own too, N/A as
    half.

    >>> [round(reward, 6) for reward in game_rewards([3, 3, 1, 3], 3)]
    [0.8, 1.0, 0.166667, 1.0]
    """
    others = len(votes) - 1
    counted = tally(votes, len(votes))
    rewards = []
    for player, (vote, count) in enumerate(zip(votes, counted.counts, strict=True), 1):
        if player == spy:
            misled = sum(counted.counts) - count + 0.5 * counted.na
            reward = 1 - count / others + 0.5 * misled / others - (vote == spy)
        else:
            reward = (1.0 if vote == spy else -1.0) - 0.6 * count / others
        rewards.append(min(1.0, max(-1.0, reward)))
    return rewards
