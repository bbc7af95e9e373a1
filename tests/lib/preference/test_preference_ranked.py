"""CSR's way of scoring: ranks and costs worked out by hand, log-probabilities of sentences, records."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.preference.ranked import Ranker, by_sentence, costs, shares
from toolroll.preference.sentences import ended, sentences
from toolroll.preference.work import Work


def test_ranks_are_shares_of_how_many_there_are():
    assert shares([26.0, 24.0, 25.0, 23.0]) == [0.25, 0.75, 0.5, 1.0]
    assert shares([1.0, 1.0]) == [0.75, 0.75]
    assert shares([5.0]) == [1.0]


def test_costs_of_paths():
    """Three answers of two sentences: 0.1 and 0.9 of rank / 3, over two places."""
    encoder = [[30.0, 20.0], [20.0, 30.0], [10.0, 10.0]]
    model = [[-1.0, -1.0], [-2.0, -2.0], [-3.0, -3.0]]
    found = costs(encoder, model, 0.9)
    assert found[0] == pytest.approx((0.1 * (1 + 1) + 0.9 * (1 + 2)) / 3 / 2)
    assert found[1] == pytest.approx((0.1 * (2 + 2) + 0.9 * (2 + 1)) / 3 / 2)
    assert found[2] == pytest.approx(1.0)
    assert costs(encoder, model, 0.0) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert costs(encoder, None, 1.0) == pytest.approx([0.5, 0.5, 1.0])


def test_places_that_one_answer_has_alone_do_not_count():
    assert costs([[30.0], [20.0, 90.0, 90.0]], None, 1.0) == [0.5, 1.0]
    assert all(math.isnan(cost) for cost in costs([[], [20.0]], None, 1.0))


answers = st.lists(st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=3), min_size=2, max_size=5)


@given(answers, st.floats(0, 1))
def test_costs_lie_between_the_best_and_the_worst_rank_and_add_up(scores, weight):
    found = costs(scores, scores, weight)
    n = len(scores)
    assert all(1 / n - 1e-9 <= cost <= 1 + 1e-9 for cost in found)
    assert sum(found) == pytest.approx((n + 1) / 2)


def test_tokens_belong_to_the_sentence_they_begin_in():
    text = "1. A cat. 3.\n- A dog, e.g. a pug!\n"
    found = by_sentence(text, list(text), [-float(i) for i in range(len(text))])
    assert [sentence for sentence, _ in found] == sentences(text)
    (_, first), (_, second) = ended(text)
    assert found[0][1] == pytest.approx(-sum(range(first)) / first)
    assert found[1][1] == pytest.approx(-sum(range(first, second)) / (second - first))
    assert by_sentence("Long one. Another.", ["Long one. Another."], [-2.0]) == [
        ("Long one.", -2.0),
        ("Another.", -2.0),
    ]
    assert by_sentence("", [], []) == []


class Letters:
    """A stand-in for a model whose every token is a letter, and whose log-probability is minus its place."""

    def __init__(self, failing="none"):
        self.failing = failing
        self.asked = []
        self.codec = SimpleNamespace(decode=lambda ids: "".join(map(chr, ids)))

    def score(self, requests):
        found = []
        for request, text in requests:
            self.asked.append((request, text))
            bad = self.failing in text
            ids = tuple(map(ord, text))
            scored = SimpleNamespace(ids=ids, logprobs=tuple(-1.0 - i for i in range(len(ids))))
            found.append(RowError("too long") if bad else scored)
        return found


def work(chosen, rejected, one, other, **more):
    parts = [
        {"score": 1.0, "sentences": [{"text": t, "score": s, "windows": 1} for t, s in zip(texts, given, strict=True)]}
        for texts, given in ((sentences(chosen), one), (sentences(rejected), other))
    ]
    fields = {"id": 1, "prompt": "What?", "images": ["a.png"], "chosen": chosen, "rejected": rejected, **more}
    fields["clip"] = {"chosen": parts[0], "rejected": parts[1], "model": "x"}
    return Work.of(Row(json.dumps(fields).encode(), None))


def rank(works, engine, weight=0.9):
    return Ranker(weight, lambda: engine, min_chars=4, folder=None, batch=2)(works)


def test_records_get_the_scores():
    engine = Letters()
    made = rank(
        [
            work("A cat.", "A dog sits.", [26.0], [25.0]),
            work("A cat.", "...", [26.0], []),
            work("Good one. Bad one.", "Good two. Bad two.", [26.0, 20.0], [26.0, 21.0]),
        ],
        engine,
    )
    first, empty, third = (one.fields["clip"] for one in made)
    assert first["preset"] == "csr"
    assert first["chosen"]["score"] == pytest.approx(50.0)  # the shorter one is likelier, too
    assert first["rejected"]["score"] == pytest.approx(0.0)
    assert first["chosen"]["sentences"][0] == {"text": "A cat.", "score": 26.0, "windows": 1, "logprob": -3.5}
    assert (empty["chosen"]["score"], empty["rejected"]["score"]) == (None, None)
    # equal in all ranks of the model (.75), at the first place of the encoder, worse at the second
    assert third["chosen"]["score"] == pytest.approx(100 * (1 - (0.1 * 0.75 + 0.9 * (0.75 + 1) / 2)))
    assert [text for _, text in engine.asked] == [
        *("A cat.", "A dog sits.", "A cat.", "Good one. Bad one.", "Good two. Bad two.")
    ]
    assert engine.asked[0][0].images[0].name == "a.png"


def test_the_encoder_alone_needs_no_model_and_errors_stay_where_they_are():
    def nobody():
        raise AssertionError("no model is wanted")

    (made,) = Ranker(1.0, nobody, min_chars=4, folder=None)([work("A cat.", "A dog.", [1.0], [2.0])])
    assert made.fields["clip"]["chosen"]["score"] == 0
    assert made.fields["clip"]["chosen"]["sentences"][0]["logprob"] is None
    failed = work("A cat.", "A dog.", [1.0], [2.0]).fail("no image")
    good, bad = work("A cat.", "A dog.", [1.0], [2.0]), work("A bird.", "A dog.", [1.0], [2.0])
    lost = work("A cat.", "A dog.", [1.0], [2.0], images=[])
    made = rank([failed, bad, lost, good], Letters("bird"))
    assert [one.error for one in made] == ["no image", "too long", "no `images` and no `image`", None]
