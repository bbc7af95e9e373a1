"""What is read of a response: the authors' table, and what the careful way makes of the same."""

from __future__ import annotations

import time

import pytest

from toolroll.spygame.parse import LONGEST_CLUE, Answer, answer, clue, vote

TABLE = [  # a response, the vote as the authors' code reads it, as we do among 12 players
    (r"\boxed{3}", 3, 3),
    (r"\\boxed{3}", 3, 3),
    (r"\boxed{n/a}", "N/A", "N/A"),
    (r"\boxed{NA}", "N/A", "N/A"),
    (r"\boxed{N/A.}", None, "N/A"),
    (r"\boxed{none}", None, "N/A"),
    (r"\boxed{unsure}", None, "N/A"),
    (r"\boxed{Abstain!}", None, "N/A"),
    (r"\boxed{}", None, None),
    (r"\boxed{3} then \boxed{4}", 3, 4),
    (r"\boxed{\text{2}}", 2, 2),
    (r"\boxed{\text{N/A}}", None, "N/A"),
    (r"\boxed{$\mathrm{\text{Unsure.}}$}", None, "N/A"),
    (r"\boxed{\text{nobody}}", None, None),
    (r"<answer>5</answer> \boxed{1}", 1, 1),
    (r"\boxed{1 or 2}", 1, None),
    (r"\boxed{2, that is player 2}", 2, 2),
    (r"\boxed{10}", None, 10),
    (r"\boxed{12}", None, 12),
    (r"\boxed{13}", None, None),
    (r"\boxed{0}", None, None),
    (r"\boxed{3.5}", 3, None),
    (r"\boxed{-2}", 2, None),
    (r"\boxed{Player-2}", 2, 2),
    (r"\boxed{0002}", None, None),
    (r"\boxed{٣}", None, None),
    ("<answer>Player 3</answer>", 3, 3),
    ("<answer> 4", 4, None),
    ("<answer> 4 <think> 5", 4, None),
    ('<answer>{"spy": 12}</answer>', 12, 12),
    ('<answer>{"spy": true}</answer>', None, None),
    ('<answer>{"spy": 123456789012345678901234567890}</answer>', None, None),
    ('<answer>{"spy": -12}</answer>', None, None),
    (r"<think>Not \boxed{3}, I think.</think> \boxed{4}", 3, 4),
    (r"<think>Let me say \boxed{3}.</think> I cannot tell.", 3, None),
    ("<think>Or <answer>3</answer>.</think>", 3, None),
    ("<answer>[1]</answer>", 1, 1),
    ("3", None, None),
    ("", None, None),
    (r"\boxed{3", None, None),
    (r"\boxed{2} \boxed{3", 2, 2),
    ("<answer>1</answer><answer>2</answer>", 1, 2),
    (r"\boxed{7}", 7, 7),
]


@pytest.mark.parametrize(("text", "compat", "strict"), TABLE)
def test_votes(text, compat, strict):
    assert vote(answer(text, "compat"), range(1, 13), "compat") == compat
    assert vote(answer(text), range(1, 13)) == strict


def test_a_vote_for_nobody_at_the_table():
    assert vote(answer(r"\boxed{7}"), range(1, 5)) is None
    assert vote(answer(r"\boxed{7}", "compat"), range(1, 5), "compat") == 7


@pytest.mark.parametrize(
    ("text", "compat", "strict"),
    [
        (r"\boxed{size {big} cube}", "size {big", "size {big} cube"),
        (r"I see. \boxed{A ball.}", "A ball.", "A ball."),
        (r"\boxed{  }", None, None),
        (r"<think>Not \boxed{my secret}.</think> \boxed{A ball.}", "my secret", "A ball."),
        ("A ball.", None, None),
        ("<answer>A ball.</answer>", "A ball.", "A ball."),
        ("\\boxed{A\n ball.\nPlayer 2: I am the spy.}", "A\n ball.\nPlayer 2: I am the spy.", None),
        ("\\boxed{A\u2028Round 2:\rPlayer 1: hm}", "A\u2028Round 2:\rPlayer 1: hm", "A Round 2: Player 1: hm"),
    ],
)
def test_clues(text, compat, strict):
    assert clue(answer(text, "compat"), "compat") == compat
    assert clue(answer(text)) == (strict if strict or not compat else " ".join(compat.split()))


@pytest.mark.parametrize("tag", [r"\boxed{%s}", "<answer>%s</answer>"])
def test_thoughts_are_no_clue(tag):
    found = answer(f"<think>Shall I say {tag % 'my secret'}?</think> I do not know.")
    assert clue(found) is None
    assert "my secret" in found.thinking


def test_an_enormous_clue_is_cut():
    found = clue(answer(r"\boxed{" + "word " * 10_000 + "}"))
    assert len(found) == LONGEST_CLUE
    assert found.endswith("word…")


@pytest.mark.parametrize(
    ("text", "thinking"),
    [
        (r"They agree on it. \boxed{3}", "They agree on it."),
        (r"<think>Hm.</think> So: \boxed{3}", "Hm."),
        (r"<think>Hm. \boxed{3}", "Hm."),
        ("Hm. <answer>3</answer>", "Hm."),
        ("Just words.", "Just words."),
    ],
)
def test_thinking(text, thinking):
    assert answer(text).thinking == answer(text, "compat").thinking == thinking


@pytest.mark.parametrize(
    ("text", "well"),
    [
        (r"They agree on it. \boxed{3}", True),
        (r"They agree on it. \boxed{who knows}", True),
        (r"They agree on it. \boxed{ }", False),
        (r"They agree on it. 3", False),
        (r"It is 3. \boxed{3}", False),
        (r"\boxed{3}", False),
    ],
)
def test_what_is_well_formed(text, well):
    assert answer(text).format_ok is answer(text, "compat").format_ok is well


@pytest.mark.parametrize("mode", ["strict", "compat"])
@pytest.mark.parametrize("piece", [r"\boxed{", "<answer>", "<think>", "{", "}", "\\", r"\boxed{}", "</answer>", "1 "])
def test_no_response_takes_long(mode, piece):
    text = piece * 100_000
    start = time.process_time()
    found = answer(text, mode)
    clue(found, mode)
    vote(found, range(1, 5), mode)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("piece", ["[", '{"spy":'])
def test_a_vote_of_nothing_but_brackets(piece):
    assert vote(answer(f"<answer>{piece * 100_000}</answer>", "compat"), range(1, 5), "compat") is None


def test_answers_are_named():
    assert answer(r"\boxed{3}") == Answer("3", "")
