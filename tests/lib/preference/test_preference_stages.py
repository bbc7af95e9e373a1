"""Strength of hallucination, foreign pairs, decided records, and many pairs in numbers."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import RowError, UsageError
from toolroll.io.rows import Row
from toolroll.preference.deciding import Decider, RuleOptions
from toolroll.preference.foreign import answered, asked, in_form, out_of_form, pair
from toolroll.preference.stats import Sums, spearman
from toolroll.preference.strength import Strength, planned, read_strength, uniform
from toolroll.preference.work import Work


def test_the_normal_strength_is_the_one_worked_out():
    """N(.5, .15) cut to [0, 1]: 99.914 % of it, with a standard deviation of .1492 (sampled: 99.92 %, .1494)."""
    normal, end = statistics.NormalDist(0.5, 0.15), 0.5 / 0.15
    kept = normal.cdf(1) - normal.cdf(0)
    deviation = 0.15 * math.sqrt(1 - 2 * end * statistics.NormalDist().pdf(end) / kept)
    assert (kept, deviation) == (pytest.approx(0.9992, abs=1e-4), pytest.approx(0.1494, abs=2e-4))
    strength = read_strength("normal:0.5,0.15", (0.0, 1.0), clip=False)
    drawn = [strength.draw(seed) for seed in range(4000)]
    assert statistics.mean(drawn) == pytest.approx(0.5, abs=0.01)
    assert statistics.stdev(drawn) == pytest.approx(deviation, abs=0.006)
    assert all(0 <= h <= 1 for h in drawn)
    clipped = read_strength("normal:1,0.2", (0.0, 1.0), clip=True)
    assert sum(clipped.draw(seed) == 1 for seed in range(1000)) == pytest.approx(500, abs=60)


@given(st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_draws_are_within_bounds_and_depend_on_the_seed_alone(seed, number):
    for text in ("normal:0.5,0.15", "uniform:0.2,0.3", "0.7", "grid:0.1,0.9"):
        strength = read_strength(text, (0.1, 1.0), clip=False)
        low, high = strength.bounds
        assert low <= strength.draw(seed, number) <= high
        assert strength.draw(seed, number) == strength.draw(seed, number)
    assert 0 < uniform(seed, number) < 1


def test_plans_depend_on_the_name_and_the_number_of_the_pair():
    negative = Strength("uniform", (0.1, 0.9))
    few = planned("a", seed=0, pairs=2, positive=0.0, negative=negative)
    many = planned("a", seed=0, pairs=5, positive=0.0, negative=negative)
    assert many.answers[:4] == few.answers
    assert many.pairs[:2] == few.pairs
    assert len({one.seed for one in many.answers}) == 10
    assert planned("b", seed=0, pairs=2, positive=0.0, negative=negative).answers != few.answers
    ladders = planned("a", seed=0, pairs=2, positive=0.0, negative=None, ladder=[0.4, 0.0, 0.2])
    assert [one.h for one in ladders.answers] == [0.0, 0.2, 0.4] * 2
    assert [(one, other) for _, one, other in ladders.pairs] == [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]


@pytest.mark.parametrize("text", ["", "x", "1,2", "normal:", "normal:1", "normal:1,-1", "uniform:2,1", "inf", "odd:1"])
def test_what_is_no_strength(text):
    with pytest.raises(UsageError):
        read_strength(text, (0.0, 1.0), clip=False)


def test_foreign_pairs_with_several_turns_and_images():
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cube."}]
    more = [*turns, {"from": "human", "value": "More?"}]
    fields = {
        "image": "a.png",
        "conversations": [*more, {"from": "gpt", "value": "No."}],
        "rejected_conversations": [*more, {"from": "gpt", "value": "A dog."}],
    }
    found = in_form(fields)
    assert [message["role"] for message in found["prompt"]] == ["user", "assistant", "user"]
    assert found["prompt"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert found["prompt"][2]["content"] == [{"type": "text", "text": "More?"}]
    assert found["images"] == ["a.png"]
    both = in_form({"question": "?", "chosen": "a", "rejected": "b", "images": ["a.png", "b.png"]})
    assert [part["type"] for part in both["prompt"][0]["content"]] == ["image", "image", "text"]
    assert "images" not in both
    for wrong in ({}, {"chosen": "a"}, {"chosen": "a", "rejected": "b", "question": 7}, {"conversations": [7]}):
        with pytest.raises(RowError):
            in_form(wrong)


def reread(row, options=None, form="trl"):
    """A line read as a pair, decided, and written."""
    work = Work.of(Row(json.dumps(row).encode(), None))
    (work,) = Decider(options or RuleOptions(with_dropped=True))([work.set(**in_form(work.fields))])
    return json.loads(work.result(form).encode())


TALKS = {
    "trl": pair(asked("What?", 1), "a dog", "two cubes"),
    "implicit": {
        name: [*asked("What?", 1), *answered(text)] for name, text in (("chosen", "a dog"), ("rejected", "two cubes"))
    },
    "rlaifv": {"question": "What?", "chosen": "a dog", "rejected": "two cubes"},
    "llava": {
        name: [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": text}]
        for name, text in (("conversations", "a dog"), ("rejected_conversations", "two cubes"))
    },
}


@pytest.mark.parametrize("form", ["trl", "rlaifv", "llava"])
@pytest.mark.parametrize("source", TALKS)
def test_a_reversed_pair_of_any_form_stays_reversed_when_it_is_read_again(source, form):
    scores = {"chosen": {"score": 1.0}, "rejected": {"score": 9.0}}
    once = reread({"id": 1, "image": "a.png", **TALKS[source], "clip": scores}, form=form)
    assert (once["action"], once["reversed"], once["delta"]) == ("reverse", True, 8.0)
    for again in (reread(once), reread(reread(once, RuleOptions(keep_margin=9.0, with_dropped=True)), form="trl")):
        assert [again[name][0]["content"][0]["text"] for name in ("chosen", "rejected")] == ["two cubes", "a dog"]
        assert (again["action"], again["reversed"], again["clip"]["chosen"]["score"]) == ("keep", True, 9.0)
        assert not {"conversations", "rejected_conversations", "image"} & set(again)
    other = reread(once, form="llava")
    assert [other[name][-1]["value"] for name in ("conversations", "rejected_conversations")] == ["two cubes", "a dog"]
    assert not {"prompt", "chosen", "rejected"} & set(other)
    assert not {"conversations", "rejected_conversations"} & set(reread(once, form="rlaifv"))


def test_a_pair_in_trls_form_is_taken_for_one_whatever_else_it_has():
    both = {**TALKS["llava"], **pair(asked("What?", 0), "two cubes", "a dog"), "question": "Who?"}
    assert in_form(both) == {}
    assert in_form({**both, "prompt": None})["chosen"][0]["content"][0]["text"] == "a dog"


@pytest.mark.parametrize("prompt", [5, {"a": 1}, [3], [], [{"role": "user", "content": 7}]])
@pytest.mark.parametrize("form", ["trl", "rlaifv", "llava"])
def test_a_prompt_that_is_none_is_refused_in_every_form(prompt, form):
    with pytest.raises(RowError, match=r"`prompt` (is|has)"):
        reread({"id": 1, "prompt": prompt, "chosen": "a", "rejected": "b"}, RuleOptions(on_negative="keep"), form)
    for name in ("chosen", "rejected"):
        with pytest.raises(RowError, match=f"`{name}` is neither text nor messages"):
            in_form({"prompt": "What?", "chosen": "a", "rejected": "b", name: 5})
    with pytest.raises(RowError, match="`prompt` is neither text nor messages"):
        in_form({"chosen": [3, 4], "rejected": [3, 5]})


def test_marks_in_the_text_of_messages_give_way_to_places():
    place, what = {"type": "image"}, {"type": "text", "text": "What?"}
    answers = {"chosen": answered("a"), "rejected": answered("b")}
    for content in (
        "<image>\nWhat?",
        [{"type": "text", "text": "What? <image>"}],
        [place, {**what, "text": "<image>What?"}],
    ):
        prompt = [{"role": "system", "content": "Be  brief. "}, {"role": "user", "content": content}]
        found = in_form({"prompt": prompt, **answers, "images": ["a.png"]})
        assert found["prompt"][0]["content"] == [{"type": "text", "text": "Be  brief. "}]
        assert found["prompt"][1] == {"role": "user", "content": [place, what]}
        implicit = {name: [*prompt, *messages] for name, messages in answers.items()}
        assert in_form({**implicit, "images": ["a.png"]})["prompt"] == found["prompt"]
    for unmarked in ([{"role": "user", "content": "What?"}], asked("What?", 1)):
        assert in_form({"prompt": unmarked, **answers, "images": ["a.png"]}) == {}
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cube."}]
    turns += [{"from": "human", "value": "And in <image>?"}, {"from": "gpt", "value": "A dog."}]
    talk = in_form({"conversations": turns, "rejected_conversations": turns, "images": ["a.png", "b.png"]})
    assert [message["content"] for message in talk["prompt"][::2]] == [
        [place, place, what],
        [{**what, "text": "And in ?"}],
    ]


def test_a_prompt_without_a_place_for_its_image_becomes_a_message():
    fields = {"prompt": "What?", "chosen": "a", "rejected": "b", "images": ["a.png"]}
    assert in_form(fields)["prompt"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert in_form(fields)["chosen"][0]["role"] == "assistant"
    for marked in ("<image>What?", "<|image_pad|> What?", "[IMG]What?"):
        assert in_form({**fields, "prompt": marked}) == {}
    assert in_form({**fields, "images": []}) == {}
    assert in_form({**fields, "prompt": "<image>", "images": [{"path": "a.png", "bytes": None}]}) == {
        "images": ["a.png"]
    }


words = st.text("ab c.", min_size=1, max_size=9).map(str.strip).filter(bool)


@given(words, words, words, st.booleans(), st.booleans())
def test_other_forms_hold_what_trls_holds(question, one, other, image, turns):
    fields = {"images": ["a.png"] if image else [], **pair(asked(question, int(image)), one, other)}
    if turns:
        fields["prompt"] += [*answered("yes"), {"role": "user", "content": [{"type": "text", "text": "more?"}]}]
    for form in ("llava",) if turns else ("llava", "rlaifv"):
        made = {name: value for name, value in out_of_form(fields, form).items() if value is not None}
        back = {**made, **in_form(made)}
        assert [back[name] for name in ("prompt", "chosen", "rejected")] == [
            fields[name] for name in ("prompt", "chosen", "rejected")
        ]
        assert back.get("images", []) == fields["images"]
    assert out_of_form(fields, "trl") == {}


def test_what_other_forms_have_no_room_for():
    two = {"images": ["a.png", "b.png"], **pair(asked("?", 2), "a", "b")}
    for form in ("rlaifv", "llava"):
        with pytest.raises(RowError, match="room for one"):
            out_of_form(two, form)
    talk = pair([*asked("?", 0), *answered("yes"), *asked("?", 0)], "a", "b")
    with pytest.raises(RowError, match="one question"):
        out_of_form(talk, "rlaifv")
    with pytest.raises(RowError, match="no conversation"):
        out_of_form(pair([{"role": "tool", "content": "x"}], "a", "b"), "llava")


def test_a_row_in_another_form_keeps_what_is_not_of_the_form():
    work = record(7, images=["a.png"], odd=[1e300], image="a.png")
    line = json.loads(next(Decider(RuleOptions())([work])).result("rlaifv").encode())
    assert (line["question"], line["chosen"], line["rejected"]) == ("What?", "two cubes", "a dog")
    assert (line["image_path"], line["odd"], line["action"]) == ("a.png", [1e300], "keep")
    assert not {"prompt", "images", "image"} & set(line)
    bad = record(8, images=["a.png", "b.png"]).result("rlaifv")
    assert "room for one" in bad.error["why"]
    assert json.loads(bad.encode())["prompt"] == "What?"


def test_token_counts_of_pair_logps_go_before_those_of_the_answers_as_written():
    made = {"prompt_tokens": 50, "chosen": {"tokens": 10}, "rejected": {"tokens": 20}}
    counted = {"prompt_tokens": 40, "chosen_tokens": 5, "rejected_tokens": 6}
    for fields, limit, reason in [
        ({"made": made}, 70, None),
        ({"made": made}, 69, "tokens"),
        ({"made": made, **counted}, 46, None),
        ({"made": made, **counted}, 45, "tokens"),
    ]:
        (work,) = Decider(RuleOptions(max_total_tokens=limit))([record(1, **fields)])
        assert (work.error, work.fields["reason"]) == (None, reason)
    for fields in ({}, {"made": {**made, "prompt_tokens": None}}, {"made": {**made, "chosen": None}}):
        (work,) = Decider(RuleOptions(max_total_tokens=9))([record(1, **fields)])
        assert "no token counts" in work.error


def record(i, chosen="two cubes", rejected="a dog", one=26.0, other=25.0, **more):
    clip = {"chosen": {"score": one}, "rejected": {"score": other}}
    fields = {"id": i, "prompt": "What?", "chosen": chosen, "rejected": rejected, "clip": clip, **more}
    return Work.of(Row(json.dumps(fields).encode(), None))


def test_deciding_again_gives_the_same_and_unknown_fields_stay():
    works = [record(0), record(1, one=24.0), record(2, one=25.0, odd=[1e300])]
    once = [work.result() for work in Decider(RuleOptions(with_dropped=True))(works)]
    made = [json.loads(row.encode()) for row in once]
    assert [row["action"] for row in made] == ["keep", "reverse", "drop"]
    assert made[2]["odd"] == [1e300]
    again = [
        json.loads(work.result().encode())
        for work in Decider(RuleOptions(with_dropped=True))([Work.of(Row(row.encode(), None)) for row in once])
    ]
    assert again[1]["action"] == "keep"
    assert again[1]["reversed"] is True
    assert again[1]["delta"] == 1.0


def test_numbers_that_no_reader_takes_are_only_passed_on():
    line = b'{"id":1,"odd":123456789012345678901234567890,"chosen":"two cubes","rejected":"a dog","prompt":"?"}'
    (work,) = Decider(RuleOptions(on_negative="keep"))([Work.of(Row(line, None))])
    assert b'"odd":123456789012345678901234567890' in work.result().encode()


def test_a_pair_that_came_before_is_dropped_whichever_way_round():
    works = [record(0), record(1, chosen="a  dog", rejected="two cubes", one=25.0, other=26.0), record(2, rejected="x")]
    decider = Decider(RuleOptions(drop=("duplicate",)))
    found = list(decider(works))
    assert [work.fields["reason"] for work in found] == [None, "duplicate", None]
    assert [work.dropped for work in found] == [False, True, False]
    assert decider.counts == {"keep": 2, "drop (duplicate)": 1}


def test_the_length_limit_is_found_from_the_pairs():
    works = [record(0, "a b c d e f g h i j", "k l m n o p q r s t"), record(1, "a b", "k l m n o p q r s t")]
    decider = Decider(RuleOptions(max_gap="auto"))
    assert [work.fields["reason"] for work in decider(works)] == [None, "length"]
    assert decider.max_gap == 0.78


def test_ten_thousand_words_are_no_trouble():
    long = "word and another word " * 2500
    (work,) = Decider(RuleOptions(drop=("loop", "refusal"), script="latin"))([record(0, chosen=long)])
    assert work.fields["reason"] == "loop"


def test_a_script_that_is_none_is_refused():
    for script in ("latin", "Cyrillic", "cjk", "old italic"):
        assert RuleOptions(script=script).rules().script == script
    for script in ("latn", "lati", "", "digit"):
        with pytest.raises(UsageError, match="no letters of a script"):
            RuleOptions(script=script)


# --- many pairs in numbers


def many(n, swapped=0, noise=False, **made):
    sums = Sums()
    for i in range(n):
        gap = (1 if i % 2 else -1) if noise else (-2.0 if i < swapped else 2.0)
        fields = {
            "clip": {"chosen": {"score": 25.0 + gap}, "rejected": {"score": 25.0}},
            "made": {"chosen": {"h": 0.0}, "rejected": {"h": 0.1 + 0.8 * i / n}},
            **made,
        }
        sums.add(fields, ("a b c", "d e f"))
    return sums.report()


def test_warnings_of_noise_and_of_swapped_sides():
    assert many(100, swapped=20)["warnings"] == []
    assert many(100, swapped=20)["negative_share"] == 0.2
    assert "noise" in many(100, noise=True)["warnings"][0]
    assert "swapped" in many(100, swapped=90)["warnings"][0]
    assert not any("swapped" in text for text in many(19, swapped=19)["warnings"])


def test_a_reversed_pair_counts_as_it_was_made():
    sums = Sums()
    reverse = {
        "action": "reverse",
        "reversed": True,
        "clip": {"chosen": {"score": 27}, "rejected": {"score": 25}},
        "made": {"chosen": {"h": 0.5}, "rejected": {"h": 0}},
    }
    sums.add(reverse, ("a", "b"))
    report = sums.report()
    assert (report["mean_gap"], report["negative_share"], report["n_reversed"]) == (-2, 1, 1)
    assert list(sums.steps) == [0.5]
    assert list(sums.histogram()) == [{"low": -2.0, "high": -1.0, "n": 1, "bar": "#" * 40}]


def test_a_score_that_is_no_number_is_none():
    sums = Sums()
    for score in (True, "1", None):
        sums.add({"clip": {"chosen": {"score": score}, "rejected": {"score": 0.5}}}, ("a", "b"))
    assert (sums.report()["n_pairs"], sums.report()["n_scored"]) == (3, 0)


def test_lengths_and_cuts_are_told():
    sums = Sums()
    for _ in range(30):
        sums.add({"made": {"chosen": {"finish": "length"}}}, ("a b", "c d e f"))
    sums.add({"action": "drop", "reason": "tie"}, ("a " * 100, "b"))
    report = sums.report()
    assert (report["length_gap"], report["longer_share"], report["dropped"]) == (0.5, 0, {"tie": 1})
    assert ["shorter" in text or "cut" in text for text in report["warnings"]] == [True, True]
    assert Sums().report()["warnings"] == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_rank_correlations(pairs):
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    found = spearman(one, other)
    assert (found is None) == (len(set(one)) < 2 or len(set(other)) < 2)
    if found is not None:
        assert -1 - 1e-9 <= found <= 1 + 1e-9
        assert spearman(other, one) == pytest.approx(found)
        assert spearman([-a for a in one], other) == pytest.approx(-found)
    distinct = dict(pairs)
    if len(set(distinct.values())) == len(distinct) > 1:  # without ties: 1 - 6 sum d^2 / (n (n^2 - 1))
        ranks = [{value: rank for rank, value in enumerate(sorted(side))} for side in (distinct, distinct.values())]
        total = sum((ranks[0][a] - ranks[1][b]) ** 2 for a, b in distinct.items())
        n = len(distinct)
        assert spearman(list(distinct), list(distinct.values())) == pytest.approx(1 - 6 * total / (n * (n * n - 1)))
