"""Questions and game turns: their answers follow from the scene, sides come out even, formats are the game's."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from toolroll.world.draws import Draws
from toolroll.world.game import (
    altered,
    civilian_clue,
    clue_turn,
    fits,
    spy_clue,
    transcript,
    vote_answer,
    vote_turn,
)
from toolroll.world.place import drawn_scene
from toolroll.world.questions import (
    NOTHING,
    QUESTIONS,
    attribute_question,
    chart_questions,
    description,
    existence_question,
    lists_question,
    names_without,
    position_question,
    questions_about,
)
from toolroll.world.scene import Scene, Solid
from toolroll.world.tables import Table
from toolroll.world.words import mentions


def solid(shape, size, color, material, x=0.0, y=0.0):
    return Solid(shape, size, color, material, x, y, 0.0, 0.5)


TWO = Scene((solid("cube", "large", "red", "metal", 2.0, -1.0), solid("sphere", "small", "red", "metal", -2.0, 1.0)))


@pytest.fixture(scope="module")
def scenes():
    return [drawn_scene(Draws(seed), 2 + seed % 5, 96, 72) for seed in range(40)]


def test_a_name_never_has_what_is_asked_and_fits_one_object():
    assert names_without(TWO, 0, "shape")[0] == ("size",)
    assert names_without(TWO, 0, "size")[0] == ("shape",)
    asked = attribute_question(TWO, "color", Draws(0))
    assert asked.answer == "red"
    assert "red" not in asked.question
    alike = Scene((TWO.solids[0], solid("cube", "large", "blue", "metal", -2.0, 1.0)))
    assert attribute_question(alike, "color", Draws(0)) is None


def test_attribute_questions_are_about_one_object(scenes):
    for seed, scene in enumerate(scenes):
        for asked in questions_about(scene, Draws(seed), ("color", "shape", "size", "material")):
            named = re.fullmatch(r"What (\w+) is the (.+)\?", asked.question)
            (mention,) = mentions(named[2])
            (found,) = [one for one in scene.solids if mention.fits(one)]
            assert getattr(found, named[1]) == asked.answer
            assert getattr(mention, named[1]) is None


def test_existence_is_told_truly_and_comes_out_even(scenes):
    said = Counter()
    for seed in range(400):
        scene = scenes[seed % len(scenes)]
        asked = existence_question(scene, Draws(seed))
        (mention,) = mentions(asked.question.replace("Is there", "There is"))
        assert (asked.answer == "yes") == any(mention.fits(one) for one in scene.solids)
        said[asked.answer] += 1
    assert 150 < said["yes"] < 250


def test_lists_fit_if_all_of_them_does(scenes):
    said = Counter()
    for seed in range(200):
        scene = scenes[seed % len(scenes)]
        asked = lists_question(scene, Draws(seed))
        one, other = re.fullmatch(r"List A: (.+)\. List B: (.+)\. Which fit the picture\?", asked.question).groups()
        true = {(True, True): "both", (True, False): "A", (False, True): "B", (False, False): "neither"}
        assert asked.answer == true[fits(one, scene), fits(other, scene)]
        said[asked.answer] += 1
    assert min(said.values()) > 25


def test_positions_are_those_of_the_scene():
    stands = TWO.relationships()
    seen = {position_question(TWO, Draws(seed)) for seed in range(30)}
    for asked in seen:
        one = 0 if asked.question.split()[2] in ("large", "cube") else 1
        side = {"left of": "left", "right of": "right", "in front of": "front", "behind": "behind"}[asked.answer]
        assert one in stands[side][1 - one]
    assert len(seen) > 2


def test_an_empty_picture_has_answers():
    empty = Scene(())
    assert description(empty).answer == NOTHING
    kinds = {asked.kind: asked.answer for asked in questions_about(empty, Draws(3))}
    assert kinds["existence"] == "no"
    assert kinds["count"] == "0"
    assert kinds["lists"] == "neither"
    assert "color" not in kinds
    assert re.fullmatch(r"\\boxed\{There is an? .+\.\}", clue_turn(empty, Draws(0)).answer)


def test_questions_depend_on_the_seed_alone(scenes):
    assert questions_about(scenes[0], Draws(5)) == questions_about(scenes[0], Draws(5))
    assert len(questions_about(scenes[3], Draws(5))) == len(QUESTIONS)


def test_charts():
    table = Table("barh", "t", ("a", "b", "c", "d"), (("n", (5.0, 9.0, 7.0, 1.0)),))
    asked = {one.kind: one for one in chart_questions(table, Draws(0))}
    assert asked["chart kind"].answer == "horizontal bar chart"
    assert asked["chart count"].answer == "4"
    assert asked["chart largest"].answer == "second"
    assert asked["chart caption"].answer == "This is a horizontal bar chart with four bars; the second is the largest."
    two = Table("line", "t", ("a", "b"), (("m", (1.0, 2.0)), ("n", (3.0, 4.0))))
    assert chart_questions(two, Draws(0))[-1].answer == "This is a line chart with two points of two series."


def test_clues_of_civilians_are_true_and_new(scenes):
    for seed, scene in enumerate(scenes):
        said: list[str] = []
        for _ in scene.solids:
            clue = civilian_clue(scene, said, Draws(seed))
            assert fits(clue, scene)
            said.append(clue)
        assert fits(spy_clue(scene, said, Draws(seed)), scene)


def test_an_altered_scene_differs_in_colour_and_shape_of_two(scenes):
    for seed, scene in enumerate(scenes):
        other = altered(scene, Draws(seed))
        changed = [(one, two) for one, two in zip(scene.solids, other.solids, strict=True) if one.looks != two.looks]
        assert len(changed) == 2
        assert all(one.color != two.color and one.shape != two.shape and one.size == two.size for one, two in changed)


def test_votes_by_hand():
    good, bad = "There is a red cube.", "There is a blue cube."
    assert vote_answer(TWO, [[good, bad, good]]) == r"1 fits, 2 not, 3 fits. \boxed{2}"
    assert vote_answer(TWO, [[good, good, good]]) == r"1 fits, 2 fits, 3 fits. \boxed{N/A}"
    assert vote_answer(TWO, [[bad, bad, good]]) == r"1 not, 2 not, 3 fits. \boxed{N/A}"
    told = vote_answer(TWO, [[bad, bad, good], [good, bad, good]])
    assert told == r"1 not, 2 not, 3 fits, 1 fits, 2 not, 3 fits. \boxed{2}"


def test_turns_have_the_format_of_the_game(scenes):
    for seed, scene in enumerate(scenes):
        assert re.fullmatch(r"\\boxed\{There is an? [a-z ]+\.\}", clue_turn(scene, Draws(seed)).answer)
        vote = vote_turn(scene, Draws(seed))
        assert re.search(r"\\boxed\{([1-5]|N/A)\}$", vote.answer)
        assert vote.question.startswith("Round 1:\nPlayer 1: ")
    assert transcript([]) == "Nobody has said anything yet: yours is the first clue."
