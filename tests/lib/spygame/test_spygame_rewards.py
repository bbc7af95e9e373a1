"""Rewards of clues and votes: the authors' numbers, worked out by their own functions, and what must always hold."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.spygame import legacy
from toolroll.spygame.rewards import (
    NA,
    accuracy,
    clue_rewards,
    decision_advantages,
    decision_reward,
    tally,
)
from toolroll.train.advantage import RoleBaselines
from toolroll.train.grouping import RoleState

CLUES = [  # players, spy, votes, rewards of players 1 to n
    (4, 2, [2, 2, 2], [0.1, -0.3, 0.1, 0.1]),
    (4, 2, [2, 2, 1], [-0.011111, -0.166667, 0.088889, 0.088889]),
    (4, 2, [1, 1, 1], [-0.233333, 0.1, 0.066667, 0.066667]),
    (4, 2, [1, 3, 4], [-0.033333, 0.1, -0.033333, -0.033333]),
    (4, 2, [NA, NA, NA], [0, 0, 0, 0]),
    (4, 2, [2, 1, NA, None], [-0.044444, -0.066667, 0.055556, 0.055556]),
    (4, 2, [7, 0, 2, NA], [0.033333, -0.1, 0.033333, 0.033333]),
    (4, 3, [3] * 8, [0.266667, 0.266667, -0.8, 0.266667]),
    (4, 3, [3, 3, 3, 3, 3, 1, 1, 2], [0.033333, 0.133333, -0.4, 0.233333]),
    (5, 5, [5, 5, 5, 1], [-0.00625, 0.09375, 0.09375, 0.09375, -0.275]),
    (5, 1, [1, 2, NA, 2], [-0.05, -0.1375, 0.0625, 0.0625, 0.0625]),
    (3, 1, [2, 2], [0.1, -0.15, 0.05]),
    (5, 5, [1, 1, 1, 2], [-0.225, -0.025, 0.075, 0.075, 0.1]),
]


@pytest.mark.parametrize(("n", "spy", "votes", "rewards"), CLUES)
def test_rewards_of_clues(n, spy, votes, rewards):
    found = clue_rewards(tally(votes, n).counts, spy)
    assert found == pytest.approx(rewards, abs=5e-7)
    assert not any(math.copysign(1, reward) < 0 for reward in found if reward == 0)


def test_what_counts_for_nobody_is_counted_apart():
    assert tally([7, 0, 2, NA], 4).na == 1
    assert tally([7, 0, 2, NA], 4).invalid == 2


@given(st.data())
def test_rewards_of_clues_add_up_to_nothing(data):
    n = data.draw(st.integers(2, 12))
    votes = data.draw(st.lists(st.one_of(st.integers(-1, n + 2), st.none(), st.just(NA)), max_size=20))
    spy = data.draw(st.integers(1, n))
    assert sum(clue_rewards(tally(votes, n).counts, spy)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("votes", "accused", "winner"),
    [
        ([2, 2, 1], 2, "civilians"),
        ([1, 1, 2], 1, "spy"),
        ([1, 2], None, "spy"),
        ([NA, None], None, "spy"),
        ([], None, "spy"),
    ],
)
def test_who_is_accused_and_who_wins(votes, accused, winner):
    counted = tally(votes, 4)
    assert (counted.accused, counted.winner(2)) == (accused, winner)
    assert counted.winner(2, "nobody") == (winner if accused else "nobody")


# --- role advantages

GAMES = [CLUES[0], CLUES[2], CLUES[1]]
ADVANTAGES = {
    0.9: [
        ([0.09, -0.27, 0.09, 0.09], (-0.03, 0.01)),
        ([-0.239, 0.117, 0.061, 0.061], (-0.017, 0.00566667)),
        ([-0.021767, -0.1347, 0.078233, 0.078233], (-0.03196667, 0.01065556)),
    ],
    0.95: [
        ([0.095, -0.285, 0.095, 0.095], (-0.015, 0.005)),
        ([-0.236417, 0.10925, 0.063583, 0.063583], (-0.00925, 0.00308333)),
        ([-0.016818, -0.149546, 0.083182, 0.083182], (-0.01712083, 0.00570694)),
    ],
}


def players(game):
    n, spy, votes, _ = game
    rewards = clue_rewards(tally(votes, n).counts, spy)
    return [("spy" if i == spy else "civilian", reward) for i, reward in enumerate(rewards, 1)]


@pytest.mark.parametrize("alpha", [0.9, 0.95])
def test_advantages_of_clues_after_the_means_have_learned(alpha):
    roles = RoleBaselines(alpha)
    for game, (advantages, (spy, civilian)) in zip(GAMES, ADVANTAGES[alpha], strict=True):
        assert roles.advantages(players(game)) == pytest.approx(advantages, abs=1e-6)
        assert roles.baselines == pytest.approx({"spy": spy, "civilian": civilian}, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.9, 0.95])
def test_advantages_of_clues_before_the_means_have_learned(alpha):
    roles = RoleBaselines(alpha, "pre")
    assert roles.advantages(players(GAMES[0])) == pytest.approx(GAMES[0][3], abs=1e-6)
    spy, civilian = ADVANTAGES[alpha][0][1]
    expected = [reward - (spy if role == "spy" else civilian) for role, reward in players(GAMES[1])]
    assert roles.advantages(players(GAMES[1])) == pytest.approx(expected, abs=1e-8)


@given(st.lists(st.lists(st.integers(1, 5), max_size=8), min_size=1, max_size=12), st.integers(1, 5))
def test_the_means_of_the_roles_balance(games, spy):
    roles = RoleBaselines(0.9)
    for votes in games:
        roles.advantages(players((5, spy, votes, None)))
    assert roles.baselines["spy"] == pytest.approx(-4 * roles.baselines["civilian"], abs=1e-9)


def test_means_in_a_file_go_on_where_they_were(tmp_path: Path):
    path = tmp_path / "roles.json"
    for number, (game, (advantages, _)) in enumerate(zip(GAMES, ADVANTAGES[0.95], strict=True)):
        state = RoleState(path, RoleBaselines(0.95))
        assert state.advantages(f"g{number}", players(game)) == pytest.approx(advantages, abs=1e-6)
        state.save()


# --- votes


@pytest.mark.parametrize(("vote", "paper"), [(3, 1), (NA, -0.5), (1, -1), (None, -1), (7, -1)])
def test_rewards_of_votes_in_the_paper(vote, paper):
    assert decision_reward(vote, 3) == accuracy(vote, 3) == paper
    assert decision_reward(vote, 3, format_ok=False) == paper


@pytest.mark.parametrize(
    ("vote", "well", "badly"), [(3, 2.49, 1.89), (NA, -0.3, -0.9), (1, -0.9, -1.5), (None, -0.9, -1.5), (7, -0.9, -1.5)]
)
def test_rewards_of_votes_in_the_code(vote, well, badly):
    assert decision_reward(vote, 3, rule="code") == pytest.approx(well)
    assert decision_reward(vote, 3, rule="code", format_ok=False) == pytest.approx(badly)


@pytest.mark.parametrize(("vote", "worth"), [(1, 1.89), (NA, 1.53), (3, -0.9)])
def test_rewards_of_the_spys_own_vote_in_the_code(vote, worth):
    assert decision_reward(vote, 3, rule="code", of_spy=True) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("rewards", "spread", "advantages"),
    [
        ([1, -0.5, -1, -1], "population", [1.677484, -0.152499, -0.762493, -0.762493]),
        ([1, -0.5, -1, -1], "sample", [1.452744, -0.132068, -0.660338, -0.660338]),
        ([2.49, -0.3, -0.9, -0.9], "population", [1.705444, -0.283350, -0.711047, -0.711047]),
        ([-0.9] * 4, "population", [0, 0, 0, 0]),
        ([-0.9] * 4, "sample", [0, 0, 0, 0]),
        ([1, -1], "none", [1, -1]),
    ],
)
def test_advantages_of_votes(rewards, spread, advantages):
    assert decision_advantages(rewards, spread) == pytest.approx(advantages, abs=1e-6)


def test_rewards_that_hardly_differ_are_only_centred():
    assert decision_advantages([0.5, 0.5 + 4e-9]) == pytest.approx([-2e-9, 2e-9], abs=1e-12)


def test_a_vote_that_is_alone():
    assert decision_advantages([1.0]) == [0]
    assert decision_advantages([1.0], keep_lone=True) == [1]


# --- rewards that the code names


@pytest.mark.parametrize(
    ("votes", "rewards"),
    [
        ([3, 3, 1, 3], [0.8, 1, 0.166667, 1]),
        ([2, 1, 1, 1], [-1, -1, 1, -1]),
        ([NA, 3, NA, 2], [-1, 0.8, 1, -1]),
        ([3, 3, 3, 3], [1, 1, -1, 1]),
        ([3, 3, 7, 3], [1, 1, 0, 1]),  # nobody is misled by a vote for nobody
    ],
)
def test_rewards_of_the_older_game(votes, rewards):
    assert legacy.game_rewards(votes, 3) == pytest.approx(rewards, abs=1e-6)


THOUGHT = "<think>Player 3 names what is not there.</think>"


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        (f"{THOUGHT}<answer>3</answer>", 1.0),
        (f"{THOUGHT}<answer> n/a </answer>", 1.0),
        (f"{THOUGHT}<answer>Player 3</answer>", 0.9),
        (f"{THOUGHT}<answer>I think it is 3</answer>", 0.7),
        (f"{THOUGHT}<answer>1 or 3</answer>", 0.3),
        (f"{THOUGHT}<answer>12</answer>", 0.3),
        (f"{THOUGHT}<answer>nobody</answer>", 0.3),
        ("<think>so</think><answer>3</answer>", 0.3),
        ("<answer>3</answer>", 0.2),
        (THOUGHT, 0.2),
        (r"\boxed{3}", 0.0),
    ],
)
def test_format_of_votes(text, worth):
    assert legacy.decision_format(text) == worth


def clue(text):
    return f"{THOUGHT}<answer>{text}</answer>"


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("A red thing is in here.", 0.2 + 0.2),
        ("A red cube is in here.", 0.2 + 0.2 + 0.25 + 0.1 + 0.05),
        ("A red cube that the spy has.", 0.2 + 0.2 + 0.25 + 0.1 + 0.05 - 0.5),
        ("Maybe a red cube.", 0.8 - 0.08),
        ("A red cube.", 0.8 - 0.1),
        ("One. Two. Three. Four.", 0.2),
    ],
)
def test_format_of_clues(text, worth):
    assert legacy.clue_format(clue(text)) == pytest.approx(worth)


def test_format_of_clues_that_come_again_or_got_votes():
    text = "A red cube is in here."
    assert legacy.clue_format(clue(text), [text]) == pytest.approx(0.0)
    assert legacy.clue_format(clue(text), ["Zwölf Boxkämpfer jagen Viktor"]) == pytest.approx(0.8)
    assert legacy.clue_format(clue(text), votes=2, voters=4) == pytest.approx(0.8 - 0.4)
    assert legacy.clue_format("<think>so</think><answer>a</answer>") == 0.1
    assert legacy.clue_format(text) == 0
