"""Preference pairs: the worked sums, the levels, and which contexts and pairs there are."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.abduction.lookup import Lookup
from toolroll.abduction.pairing import read_weights
from toolroll.abduction.pairs import Comparison, Judge, Plan, Weights, answer_pairs, compare, contexts, shares
from toolroll.abduction.prompts import STYLES, Prompts, conversation, shown, spelled
from toolroll.abduction.trial import Trial
from toolroll.errors import RowError, UsageError

#: On S = {1, 2, 3, 4}: x + 1, 2 x, x + 1 that raises at 4, and a copy of the first.
A, B, C, D = (np.array(row, np.int32) for row in ([2, 3, 4, 5], [2, 4, 6, 8], [2, 3, 4, -1], [2, 3, 4, 5]))


def valid(ids, **more):
    return Trial("consistent", ids=ids, **more)


def worth(context, ids, weights=Weights()):  # noqa: B008
    return Judge(context, 4, weights).worth(0, valid(ids))


@pytest.mark.parametrize(
    ("context", "candidate", "total"),
    [
        ([], A, 2.0),
        ([], C, 1.5),
        ([A], B, 2.607143),
        ([A], C, 1.0),
        ([A, B], C, 1.396825),
        ([A, B], D, 1.571429),
    ],
)
def test_the_worked_sums(context, candidate, total):
    assert worth(context, candidate) == pytest.approx(total, abs=5e-7)


def test_a_duplicate_can_win_by_its_generality_and_weights_can_change_that():
    trials = [valid(C), valid(D)]
    assert compare(Judge([A, B], 4, Weights()), trials, 0, 1)[:2] == (1, "fair")
    assert compare(Judge([A, B], 4, Weights(0, 1, 1)), trials, 0, 1)[:2] == (0, "fair")


LEVELS = [
    ("parse", Trial("parse_error")),
    ("timeout", Trial("timeout")),
    ("cheat", Trial("lookup", ids=A, lookups=[Lookup(1, "==", 0)])),
    ("wrong cheat", Trial("inconsistent", ids=A, lookups=[Lookup(1, "==", 0)])),
    ("wrong", Trial("inconsistent", ids=A)),
    ("small", valid(C)),
    ("large", valid(A)),
]


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ("large", "parse", "parsing"),
        ("wrong", "timeout", "parsing"),
        ("cheat", "parse", "parsing"),
        ("large", "cheat", "cheating"),
        ("wrong", "cheat", "cheating"),
        ("wrong", "wrong cheat", "cheating"),
        ("small", "wrong", "inconsistent"),
        ("large", "small", "fair"),
    ],
)
def test_the_first_level_at_which_they_differ_decides(better, worse, reason):
    trials = [dict(LEVELS)[better], dict(LEVELS)[worse]]
    for a, b, place in ((0, 1, 0), (1, 0, 1)):
        assert compare(Judge([], 4, Weights()), trials, a, b)[:2] == (place, reason)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("parse", "timeout", "parsing"),
        ("cheat", "wrong cheat", "cheating"),
        ("wrong", "wrong", "inconsistent"),
        ("large", "large", "fair"),
    ],
)
def test_both_bad_at_a_level_or_a_tie_is_no_pair(one, other, reason):
    trials = [dict(LEVELS)[one], dict(LEVELS)[other]]
    assert compare(Judge([], 4, Weights()), trials, 0, 1)[:2] == (None, reason)


def test_the_scores_of_a_fair_comparison_are_told_of_no_other():
    trials = [valid(A), valid(C), Trial("parse_error")]
    assert compare(Judge([], 4, Weights()), trials, 0, 1) == Comparison(0, "fair", (2.0, 1.5))
    assert compare(Judge([], 4, Weights()), trials, 0, 2).scores is None


def test_contexts_are_all_sets_of_valid_ones_and_candidates_all_others():
    assert list(contexts([1, 4, 5], Plan(sizes=(2, 0)))) == [(1, 4), (1, 5), (4, 5), ()]
    assert answer_pairs(5, (1, 4), Plan()) == [(0, 2), (0, 3), (2, 3)]


@given(st.integers(0, 40), st.integers(0, 9))
def test_draws_are_capped_and_those_after_a_context_depend_on_nothing_else(count, seed):
    plan = Plan(seed=seed)
    found = list(contexts(range(count), plan))
    most = min(count, 20)
    assert len(found) == len(set(found)) == 1 + most + most * (most - 1) // 2
    assert [context for context in found if len(context) == 1] == list(
        contexts(range(count), Plan(sizes=(1,), seed=seed))
    )
    assert answer_pairs(count, (), plan) == list(combinations(range(count), 2))
    for context in found[1:3]:
        pairs = answer_pairs(count, context, plan)
        assert pairs == answer_pairs(count, context, Plan(sizes=(2,), most_valid=1, seed=seed))
        assert len(set(pairs)) == len(pairs) == min(15, (count - len(context)) * (count - len(context) - 1) // 2)
        assert not {place for pair in pairs for place in pair} & set(context)


counts = st.dictionaries(st.sampled_from(["parsing", "cheating", "inconsistent", "fair"]), st.integers(0, 500))


@given(
    counts, st.dictionaries(st.sampled_from(["parsing", "inconsistent", "fair"]), st.floats(0, 3)), st.integers(1, 99)
)
def test_shares_are_in_proportion_and_never_more_than_there_are(counts, weights, most):
    kept = shares(counts, weights, most)
    assert sum(kept.values()) <= most
    for reason, number in kept.items():
        assert 0 <= number <= counts[reason]
    used = {reason: weight for reason, weight in weights.items() if weight > 0 and counts.get(reason)}
    assert set(kept) == set(used)
    for one, other in combinations(used, 2):
        assert kept[one] * used[other] <= (kept[other] + 1 + 1e-6) * used[one]


def test_ratios_of_the_curriculum_are_weights():
    assert read_weights('{"parsing": 1.16, "fair": 0.9}') == {"parsing": 1.16, "fair": 0.9}
    assert set(read_weights("even").values()) == {1.0}
    for text in ("fare=1", "fair", "fair=-1", "fair=nan", "{", '{"fair": [1]}', "fair=inf"):
        with pytest.raises(UsageError):
            read_weights(text)


OBSERVATIONS = [(b"[1,2]", b"[2]"), (b"[5]", b"[]")]


@pytest.mark.parametrize("style", STYLES)
def test_a_conversation_asks_behind_each_reply(style):
    messages = conversation(Prompts(style), OBSERVATIONS, {}, ["one", "two"])
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in messages[1::2]] == ["one", "two"]
    first, *later = (message["content"] for message in messages[::2])
    assert shown(OBSERVATIONS) in first
    assert [shown(OBSERVATIONS) in text for text in later] == [style == "full"] * 2
    assert ["1 so far" in later[0], "2 so far" in later[1]] == [style == "full"] * 2
    lengths = [len(conversation(Prompts(one), OBSERVATIONS, {}, ["x"])[-1]["content"]) for one in STYLES]
    assert lengths == sorted(lengths, reverse=True)


def test_a_template_is_filled_with_the_observations_and_the_row():
    prompts = Prompts(template="{observations} of {id}", system="Think.")
    messages = prompts.first(OBSERVATIONS, {"id": "p"})
    assert messages == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "Pair 0: ([1, 2], [2])\nPair 1: ([5], []) of p"},
    ]
    with pytest.raises(RowError, match=r"names \{id\}"):
        prompts.first(OBSERVATIONS, {})


def test_a_reply_that_is_made_is_read_as_what_it_was_made_of():
    from toolroll.abduction.parse import parse_reply

    code = 'def f(x):\n    return ["\\n", \'"\', x]'
    assert parse_reply(spelled("it's so", code))[:2] == ("it's so", code)
    assert json.dumps(spelled("no code", None)) == '"no code"'
