"""Keep, reverse, drop: the cases worked out by hand, and what holds for all pairs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.preference.answers import fault, has_loop, is_refusal, words
from toolroll.preference.decision import Rules, Side, best_max_gap, decide, length_gap, swapped

ONE, OTHER = "two red cubes stand there", "a dog sleeps on a sofa"


def judged(one, other, k=0.0, r=0.0, **rules):
    return decide(Side(ONE, one), Side(OTHER, other), Rules(k, r, **rules))


@pytest.mark.parametrize(
    ("one", "other", "margin", "action", "reason", "delta"),
    [
        (26, 23, 0, "keep", None, 3),
        (21, 25, 0, "reverse", None, 4),
        (25, 25, 0, "drop", "margin", 0),
        (26, 25.5, 1, "drop", "margin", 0.5),
        (25, 25.5, 1, "drop", "margin", -0.5),
        (24, 25.5, 1, "reverse", None, 1.5),
        (22, 23, 0, "reverse", None, 1),
        (30, math.nan, 0, "drop", "empty", None),
        (30, None, 0, "drop", "empty", None),
        (30, math.inf, 0, "drop", "empty", None),
        (26, 25, 1, "drop", "margin", 1),
        (-2, -5, 0, "keep", None, 3),
    ],
)
def test_the_table(one, other, margin, action, reason, delta):
    verdict = judged(one, other, margin, margin)
    assert (verdict.action, verdict.reason) == (action, reason)
    assert verdict.delta == delta


@pytest.mark.parametrize(
    ("one", "other", "how", "measure", "margin", "action", "reason"),
    [
        ([26, 24, 28], [25, 21], "mean", "cos", 0, "keep", None),
        ([22, 20], [24, 26], "mean", "cos", 0, "reverse", None),
        ([25], [25], "mean", "cos", 0, "drop", "margin"),
        ([28, 28, 10], [23], "mean", "cos", 0, "reverse", None),
        ([28, 28, 10], [23], "min", "cos", 0, "reverse", None),
        ([28, 28, 10], [23], "last", "cos", 0, "reverse", None),
        ([30], [], "mean", "cos", 0, "drop", "empty"),
        ([-2], [-5], "mean", "cos", 0, "keep", None),
        ([-2], [-5], "mean", "clipscore", 0, "drop", "margin"),
    ],
)
def test_the_table_from_sentences_on(one, other, how, measure, margin, action, reason):
    """The cosines of sentences, as 100 times themselves or as CLIPScore, through aggregate and decision."""
    scores = pytest.importorskip("toolroll.preference.scores", reason="scores are tensors")
    found = [
        scores.aggregated([scores.SentenceScore("", scores.measured(s / 100, measure), 1, 1) for s in sentences], how)
        for sentences in (one, other)
    ]
    verdict = judged(*found, margin, margin)
    assert (verdict.action, verdict.reason) == (action, reason)


def test_pairs_of_too_many_tokens_are_dropped_not_cut():
    few, many = Side(ONE, 26, tokens=100), Side(OTHER, 25, tokens=101)
    assert decide(few, many, Rules(max_total_tokens=101)).action == "keep"
    assert decide(few, many, Rules(max_total_tokens=100)).reason == "tokens"
    assert decide(many, few, Rules(max_total_tokens=100)).reason == "tokens"
    assert decide(Side(ONE, 26), Side(OTHER, 25), Rules(max_total_tokens=2)).action == "keep"


def test_an_empty_answer_is_dropped_before_anything_is_divided_by_its_length():
    assert decide(Side(ONE, 30), Side(" ", 20), Rules(max_gap=0.1)).reason == "empty"
    assert decide(Side("...", 30), Side(ONE, 20), Rules(on_negative="keep")).reason == "empty"


def test_the_ablations():
    assert judged(21, 25, on_negative="drop").reason == "negative"
    assert judged(21, 25, on_negative="keep").action == "keep"
    assert judged(25, 25, on_negative="keep").action == "keep"
    assert judged(None, 25, on_negative="keep").action == "keep"
    assert judged(26, 25, on_negative="drop").action == "keep"


@pytest.mark.parametrize(
    ("one", "other", "limit", "two_sided", "kept"),
    [(8, 10, 0.1, False, False), (8, 10, 0.2, False, True), (12, 10, 0.1, False, True), (12, 10, 0.1, True, False)],
)
def test_the_length_filter(one, other, limit, two_sided, kept):
    chosen, rejected = Side(" ".join(["a"] * one), 26), Side(" ".join(["b"] * other), 23)
    rules = Rules(max_gap=limit, two_sided=two_sided)
    assert (decide(chosen, rejected, rules).action == "keep") == kept
    verdict = decide(replace(rejected, score=22), chosen, rules)  # as it is written after reversal
    assert (verdict.action == "reverse") == kept
    assert kept or verdict.reason == "length"


def test_what_makes_no_pair():
    same = decide(Side("A  cube.\n", 26), Side(" A cube.", 25))
    assert (same.action, same.reason) == ("drop", "identical")
    cut = Side(ONE, 26, cut=True)
    assert decide(cut, Side(OTHER, 25)).action == "keep"
    assert decide(cut, Side(OTHER, 25), Rules(drop=("cut",))).reason == "cut"
    loop = Side("a dog and " * 9, 20)
    assert decide(Side(ONE, 26), loop).action == "keep"
    assert decide(Side(ONE, 26), loop, Rules(drop=("loop",))).reason == "loop"
    assert decide(Side("I cannot see any image.", 26), Side(OTHER, 25), Rules(drop=("refusal",))).reason == "refusal"
    assert decide(Side("красный куб", 26), Side(OTHER, 25), Rules(script="latin")).reason == "script"


def test_faults_of_answers():
    assert fault("😀 …") == "empty"
    assert fault("一个红色立方体。") is None
    assert fault("ok", ("refusal", "loop"), "latin") is None
    assert len(words("一个 red cube")) == 4
    assert is_refusal("Unfortunately, I do not have the image")
    assert not is_refusal("The sign says: sorry, I am closed")
    assert has_loop("好的" * 12)
    assert not has_loop("very very good, and very very nice")
    assert not has_loop("")
    assert has_loop("word " * 10_000)
    assert not has_loop(" ".join(str(i) for i in range(10_000)))


scores = st.one_of(st.none(), st.just(math.nan), st.integers(-40, 40).map(lambda n: n / 4))
texts = st.text("ab 红.", max_size=12)
sides = st.builds(Side, texts, scores, st.booleans(), st.one_of(st.none(), st.integers(1, 20)))
margins = st.integers(0, 12).map(lambda n: n / 4)
rules = st.builds(
    Rules,
    margins,
    margins,
    st.sampled_from(["reverse", "drop", "keep"]),
    st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5])),
    st.booleans(),
    st.sets(st.sampled_from(["cut", "loop"])),
    st.none(),
    st.one_of(st.none(), st.integers(1, 20)),
)


@given(st.lists(st.tuples(sides, sides)), rules)
def test_every_pair_is_kept_reversed_or_dropped_with_a_reason(pairs, rules):
    verdicts = [decide(*pair, rules) for pair in pairs]
    assert sum(verdict.action in ("keep", "reverse", "drop") for verdict in verdicts) == len(pairs)
    assert all((verdict.action == "drop") == (verdict.reason is not None) for verdict in verdicts)
    assert all(verdict.action != "reverse" or verdict.delta > 0 for verdict in verdicts)


@given(sides, sides, rules, margins, margins)
def test_larger_margins_never_add_pairs(one, other, rules, more_k, more_r):
    wider = replace(rules, keep_margin=rules.keep_margin + more_k, reverse_margin=rules.reverse_margin + more_r)
    after = decide(one, other, wider)
    assert after.action in ("drop", decide(one, other, rules).action)


@given(sides, sides, rules)
def test_which_answer_came_as_chosen_does_not_matter_where_pairs_are_reversed(one, other, rules):
    even = replace(rules, reverse_margin=rules.keep_margin, on_negative="reverse")
    there, back = decide(one, other, even), decide(other, one, even)
    turned = {"keep": "reverse", "reverse": "keep", "drop": "drop"}
    assert back.action == turned[there.action]
    assert back.reason == there.reason
    if there.action != "drop":
        assert back.delta == there.delta


@given(sides, sides, rules)
def test_what_was_reversed_is_then_kept(one, other, rules):
    verdict = decide(one, other, rules)
    if verdict.action == "reverse" and verdict.delta > rules.keep_margin:
        assert decide(other, one, rules) == replace(verdict, action="keep")


@given(
    st.fixed_dictionaries(
        {"chosen": texts, "rejected": texts},
        optional={
            "delta": st.integers(),
            "reversed": st.booleans(),
            "clip": st.fixed_dictionaries({"chosen": texts, "rejected": texts, "model": texts}),
            "made": st.none(),
            "ref_chosen_logps": st.floats(-9, 0),
        },
    )
)
def test_reversing_twice_changes_nothing(fields):
    twice = swapped(swapped(fields))
    assert {name: value for name, value in twice.items() if value is not None} == {
        name: value for name, value in {"reversed": False, **fields}.items() if value is not None
    }
    assert swapped(fields)["chosen"] == fields["rejected"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20), st.booleans())
def test_the_best_limit_is_at_least_as_even_as_any_other(lengths, two_sided):
    best = best_max_gap(lengths, two_sided=two_sided)
    known = [(one, other) for one, other in lengths if other]

    def off(limit):
        gaps = [(one, other, (other - one) / other) for one, other in known]
        kept = [(one, other) for one, other, gap in gaps if (abs(gap) if two_sided else gap) <= limit + 1e-12]
        total = sum(other for _, other in kept)
        return abs(sum(one for one, _ in kept) - total) / total if kept else math.inf

    assert (best is None) == (min(map(off, [i / 50 for i in range(50)])) == math.inf)
    if best is not None:
        assert off(best) == pytest.approx(min(map(off, [i / 50 for i in range(50)])))


def test_gaps_in_length():
    assert length_gap("a " * 8, "b " * 10) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no words"):
        length_gap("a", "")
    assert best_max_gap([]) is None
    assert best_max_gap([(3, 0)]) is None
