"""When to stop asking: the vectors of the released code, and each fault by itself."""

import pytest

from toolroll.abduction.stop import Judgement, StopRule

OK, BAD = Judgement(parsed=True, new_frac=0.5), Judgement(parsed=False)


def news(*counts):
    return [Judgement(parsed=True, new_frac=count / 100) for count in counts]


VECTORS = {
    "few new ones, not in a row": (news(100, 30, 10, 5, 50, 19), 6),
    "one fault of each": (
        [BAD, Judgement(parsed=True, consistent=False, new_frac=0.5), *news(20, 19)],
        4,
    ),
    "three at once": ([BAD] * 3, 3),
    "two are not enough": ([BAD] * 2, None),
    "goes on": (news(*[20] * 40), None),
    "nothing": ([], None),
}


@pytest.mark.parametrize(("judgements", "after"), VECTORS.values(), ids=VECTORS)
def test_vectors(judgements, after):
    assert StopRule().stops_after(judgements) == after


def test_what_follows_the_end_changes_nothing():
    assert StopRule().stops_after([*news(100, 30, 10, 5, 50, 19), *[BAD] * 9]) == 6


@pytest.mark.parametrize(
    ("judged", "faults"),
    [
        (OK, []),
        (BAD, ["parse_error"]),
        (Judgement(parsed=True, consistent=False, new_frac=1.0), ["inconsistent"]),
        (Judgement(parsed=True, new_frac=1.0, lookup=True), ["lookup"]),
        (Judgement(parsed=True, new_frac=0.2), []),
        (Judgement(parsed=True, new_frac=0.1999), ["few_new"]),
        (Judgement(parsed=True, consistent=False, lookup=True), ["inconsistent", "lookup", "few_new"]),
    ],
)
def test_faults(judged, faults):
    assert StopRule().faults(judged) == faults


def test_several_faults_of_one_count_once():
    several = Judgement(parsed=True, consistent=False, lookup=True)
    assert StopRule().stops_after([several, several, OK]) is None


def test_thresholds():
    judged = news(100, 15, 5, 5, 5)
    assert StopRule(min_new=0.1).stops_after(judged) == 5
    assert StopRule(min_new=0).stops_after(judged) is None
    assert StopRule(max_bad=1).stops_after(judged) == 3  # the first three are always heard
    assert StopRule(max_bad=1, least=1).stops_after(judged) == 2
    assert StopRule(max_bad=2, least=2).stops_after([BAD, BAD, OK]) == 2
    assert StopRule(most=26).stops_after([OK] * 40) == 26
    assert StopRule(most=2).stops_after([OK]) is None
