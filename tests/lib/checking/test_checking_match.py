import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.checking.match import RULES, cem, cem_word, em, f1, score


@pytest.mark.parametrize(
    ("prediction", "gold", "matches"),
    [
        ("It is Paris.", "paris", True),
        ("U.S.A.", "USA", False),
        ("1,000", "1000", False),
        ("1999-2000", "1999 2000", True),
        ("Beyoncé", "Beyonce", False),
        ("Parisian", "Paris", True),
        ("I do not know", "no", True),
        ("It was yesterday", "yes", True),
        ("not Paris but Rome", "Paris", True),
        ("anything", "the", True),
        ("anything", "", True),
        ("anything", "?", True),
        ("it's", "its", False),
        ("", "Paris", False),
        ("", "", False),
        (None, "Paris", False),
        ("The  Beatles", "a beatles", True),
        ("an apple", "apple pie", False),
    ],
)
def test_cem_as_published(prediction: str | None, gold: str, matches: bool) -> None:
    assert cem(prediction, gold) is matches
    assert cem(prediction, ["certainly not this", gold]) is matches


@pytest.mark.parametrize(
    ("prediction", "gold", "matches"),
    [
        ("It is Paris.", "paris", True),
        ("Parisian", "Paris", False),
        ("I do not know", "no", False),
        ("It was yesterday", "yes", False),
        ("no, it is not", "no", True),
        ("1999-2000", "1999 2000", True),
        ("anything", "the", False),
        ("anything", "?", False),
        ("the", "the", False),
        (None, "x", False),
    ],
)
def test_cem_word_needs_whole_words(prediction: str | None, gold: str, matches: bool) -> None:
    assert cem_word(prediction, gold) is matches


@pytest.mark.parametrize(
    ("prediction", "gold", "matches"),
    [
        ("The U.S.A.", "usa", True),
        ("1,000", "1000", True),
        ("it's", "its", True),
        ("It is Paris", "Paris", False),
        ("  PARIS! ", "paris", True),
        ("1999-2000", "1999 2000", False),
        ("", "", False),
        (None, "x", False),
    ],
)
def test_em_deletes_punctuation_and_needs_equality(prediction: str | None, gold: str, matches: bool) -> None:
    assert em(prediction, gold) is matches


def test_f1_counts_words_with_repeats() -> None:
    assert f1("the cat sat", "cat sat down") == pytest.approx(0.8)  # 2 in common of 2 and 3
    assert f1("ha ha ha", "ha ha") == pytest.approx(0.8)  # 2 in common of 3 and 2
    assert f1("Paris", ["Rome", "Paris, France", "paris"]) == 1
    assert f1("Paris", "Rome") == 0
    assert f1(None, "Rome") == f1("", "") == f1("the", "a") == 0


def test_no_gold_answer_is_matched_by_nothing() -> None:
    assert [score("Paris", [], rule) for rule in RULES] == [0, 0, 0, 0]


def test_rules_go_by_name() -> None:
    assert [score("in Paris", ["Paris"], rule) for rule in RULES] == [1, 1, 0, pytest.approx(2 / 3)]
    with pytest.raises(KeyError):
        score("x", "x", "exact")


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_strict_rules_imply_the_lenient_ones(prediction: str, gold: str) -> None:
    if cem_word(prediction, gold):
        assert cem(prediction, gold)
    assert 0 <= f1(prediction, gold) <= 1
    if em(prediction, gold) and f1(prediction, prediction) == 1:
        assert f1(prediction, gold) == 1
