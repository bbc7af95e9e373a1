"""Rows as answers, answers gathered, and the report of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compared import gathered, report, run, view
from hypothesis import given
from hypothesis import strategies as st

from toolroll.errors import RowError
from toolroll.numerics.answers import answers_of
from toolroll.numerics.configs import canonical, fields_of, from_file_name
from toolroll.numerics.divergence import avg_std_top1_prob, div_index, position_stds
from toolroll.numerics.report import for_people, rows_of_report
from toolroll.numerics.runs import Runs

# --- configurations


def test_a_text_and_an_object_may_be_the_same_configuration():
    assert canonical(fields_of("precision=bf16 tp=2")) == canonical(fields_of({"tp": 2, "precision": "bf16"}))
    assert canonical(fields_of("run = 2")) == (("config", "run = 2"),)
    assert canonical(fields_of("")) == (("config", ""),)


def test_values_of_other_types_are_other_configurations():
    kinds = [{"a": 1}, {"a": 1.5}, {"a": None}, {"a": True}, {"a": [1]}, {"a": {"b": 1}}, {"a": {}}, {}]
    assert len({canonical(fields_of(kind)) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("x/precision=bf16 batch_size=8.jsonl.zst", {"precision": "bf16", "batch_size": "8"}),
        ("stdin", {"file": "stdin"}),
        ("v=1,final.jsonl", {"file": "v=1,final"}),
    ],
)
def test_a_file_name_gives_fields(path, fields):
    assert from_file_name(path) == fields


def test_only_fields_that_differ_name_a_configuration():
    rows = [{"id": 1, "config": {"precision": p, "model": "m", "tp": t}} for p in ("bf16", "fp32") for t in (1, 2)]
    names = [one["config"] for row in report(rows) for one in row["runs"]]
    assert names == [f"precision={p} tp={t}" for p in ("bf16", "fp32") for t in (1, 2)]
    (row,) = report([{"id": 1, "config": "mine"}], by=())
    assert row["runs"][0]["config"] == "-"


def test_ignored_fields_make_no_other_configuration():
    rows = [
        {"id": i, "config": {"tp": 1, "versions": {"torch": version}}} for i, version in enumerate(("2.12", "2.13"))
    ]
    assert report(rows, ignored=("versions",))[0]["n_configs"] == 1
    assert report(rows)[0]["n_configs"] == 2


# --- groups


def test_groups_are_of_one_precision_each():
    rows = [{"id": 1, "config": {"precision": p, "tp": t}} for t in (1, 2) for p in ("bf16", "fp32")]
    assert [(row["group"], row["n_configs"]) for row in report(rows)] == [
        ({"precision": "bf16"}, 2),
        ({"precision": "fp32"}, 2),
    ]
    (row,) = report(rows, by=())
    assert (row["group"], row["n_configs"]) == ({}, 4)


def test_without_precision_all_are_one_group():
    (row,) = report([{"id": 1, "config": "a"}, {"id": 1, "config": "b"}])
    assert (row["group"], row["n_configs"]) == ({"precision": None}, 2)


def test_problems_that_some_lack_are_left_out():
    rows = [run(1, [1], name="a"), run(1, [1], name="b"), run(8, [2], name="b"), run(8, [1], name="c")]
    runs = gathered(rows)
    (row,) = rows_of_report(runs)
    assert (row["n_problems"], row["n_left_out"], row["div_percent"]) == (1, 2, 100)
    assert runs.groups[0].left_out()["c"] == (0, (("batch_size", "1"), ("precision", "bf16")))


def test_an_answer_that_is_there_twice_is_refused():
    with pytest.raises(RowError, match=r"^id, sample and config are those of f\.jsonl:1$"):
        gathered([run(1, [1]), run(1, [1])])
    runs = gathered([run(1, [1])])
    (answer,) = answers_of(view(**run(1, [2])), "g.jsonl")
    with pytest.raises(RowError, match=r"f\.jsonl:1 \(--by-file tells files apart\)$"):
        runs.add(answer, "g.jsonl:1")
    assert len(gathered([run(1, [1]), run(1, [1], sample=1)]).groups[0].problems) == 2


def test_a_file_can_be_part_of_the_configuration():
    runs = Runs()
    for file in ("a", "b"):
        for answer in answers_of(view(**run(1, [1])), file, by_file=True):
            runs.add(answer, f"{file}:1")
    assert list(runs.names(runs.groups[0]).values()) == ["file=a", "file=b"]


def test_texts_and_ids_do_not_go_together():
    with pytest.raises(RowError, match=r"tokens are texts here but not at f\.jsonl:1"):
        gathered([run(1, [1]), run(2, ["a"])])
    with pytest.raises(RowError, match="some tokens are ids, some texts"):
        gathered([run(1, [1, "a"])])
    with pytest.raises(RowError, match="63 bits"):
        gathered([run(1, [2**63])])
    (row,) = report([run(1, []), run(2, ["a"]), run(3, ["a", "b"])])
    assert (row["n_diverged"], row["avg_div_index"]) == (1, 0)


def test_what_stands_behind_a_divergence_is_let_go():
    rows = [run(size, [1] * 500, top1_prob=[0.5] * 500, top2_prob=[0.25] * 500) for size in (1, 2)]
    rows += [run(3, [1] * 10 + [2] * 490, top1_prob=[0.5] * 500, top2_prob=[0.25] * 500), rows[0] | {"config": "x"}]
    (group, _) = gathered(rows).groups
    held = group.problems["q", 0].answers.values()
    assert [(len(one.top1), len(one.gaps), one.top1.base) for one in held] == [(10, 11, None)] * 3
    assert len(gathered(rows, whole=True).groups[0].problems["q", 0].answers[0].top1) == 500


# --- what rows have


def test_the_vector_of_the_specification():
    rows = [
        run(1, [5, 7, 9, 2, 4], top1_prob=[0.9, 0.8, 0.7, 0.6, 0.5], correct=1),
        run(8, [5, 7, 9, 3, 4], top1_prob=[0.9, 0.81, 0.7, 0.5, 0.5], correct=False),
        run(16, [5, 7, 9, 2, 4, 8], top1_prob=[0.9, 0.79, 0.73, 0.6, 0.5, 0.4], correct=True),
    ]
    (row,) = report(rows)
    assert (row["avg_div_index"], row["div_percent"], row["n_no_prefix"]) == (3, 100, 0)
    assert row["avg_std_top1_prob"] == row["avg_std_top1_prob_micro"] == pytest.approx(0.00910684, abs=1e-8)
    assert row["avg_std_output_length"] == row["std_acc"] == pytest.approx(0.577350, abs=1e-6)
    assert row["mean_accuracy"] == pytest.approx(2 / 3)


def test_probabilities_come_from_log_probabilities_too():
    rows = [run(size, [1, 2], logprobs=np.log([p, 0.5]).tolist()) for size, p in ((1, 0.25), (2, 0.5))]
    assert report(rows)[0]["avg_std_top1_prob"] == pytest.approx(np.std([0.25, 0.5], ddof=1) / 2)


def test_one_configuration_compares_nothing():
    (row,) = report([run(1, [1, 2], top1_prob=[0.9, 0.8], top2_prob=[0.1, 0.1], correct=1, n_tokens=2)])
    compared = ("std_acc", "avg_std_output_length", "avg_div_index", "div_percent", "avg_std_top1_prob", "n_diverged")
    assert [row[name] for name in compared] == [None] * len(compared)
    assert (row["mean_accuracy"], row["mean_output_length"], row["n_configs"]) == (1, 2, 1)
    assert row["gap_quantiles"]["0.5"] == pytest.approx(0.7)


def test_lengths_alone_give_lengths():
    (row,) = report([{"id": 1, "config": c, "n_tokens": n} for c, n in (("a", 3), ("b", 5))])
    assert row["avg_std_output_length"] == pytest.approx(2**0.5)
    for name in ("std_acc", "avg_div_index", "div_percent", "n_diverged", "avg_std_top1_prob", "gap_quantiles"):
        assert row[name] is None
    assert row["n_scored"] == 0


def test_equal_answers_differ_by_nothing():
    rows = [run(size, [1, 2], top1_prob=[0.1, 0.3667], correct=i) for size in range(12) for i in (1,)]
    (row,) = report(rows)
    names = ("std_acc", "avg_std_output_length", "div_percent", "avg_std_top1_prob", "avg_std_top1_prob_micro")
    assert [row[name] for name in names] == [0] * 5
    assert row["avg_div_index"] == -1


def test_empty_answers_are_answers():
    (row,) = report([run(1, [], top1_prob=[]), run(2, [], top1_prob=[]), run(3, [4], top1_prob=[0.5])])
    assert (row["avg_div_index"], row["n_no_prefix"], row["avg_std_top1_prob"]) == (0, 1, None)
    assert row["mean_output_length"] == pytest.approx(1 / 3)


def test_an_unknown_score_takes_the_problem_out_of_accuracies_only():
    rows = [run(1, [1], name=n, correct=c) for n, c in (("a", 1), ("b", None), ("c", 0))]
    rows += [run(2, [1], name=n, correct=1) for n in "abc"]
    (row,) = report(rows)
    assert (row["n_problems"], row["n_scored"], row["mean_accuracy"]) == (3, 2, 0.75)
    assert row["std_acc"] == pytest.approx(np.std([0.5, 1], ddof=1))


def test_samples_are_averaged_within_their_problem():
    scores = {1: {"a": [1, 0, 0, 0], "b": [1, 1, 1, 1]}, 2: {"a": [1, 1, 1, 1], "b": [1, 1, 1, 1]}}
    rows = [
        run(size, [1], name=name, sample=i, correct=score)
        for size, problems in scores.items()
        for name, right in problems.items()
        for i, score in enumerate(right)
    ]
    (row,) = report(rows)
    assert (row["n_problems"], row["mean_accuracy"]) == (2, (0.625 + 1) / 2)
    assert row["std_acc"] == pytest.approx(np.std([0.625, 1], ddof=1))
    assert row["pass_at_k"] == {"1": 0.8125, "2": (0.5 + 1 + 1 + 1) / 4, "4": 1.0}


def test_costs_are_added_up():
    costs = {"n_tokens": 10, "ms": 100.0, "weight_bytes": 7, "kv_bytes": 4, "peak_rss_bytes": 9}
    rows = [{"id": i, "config": c, **costs} for i in (1, 2) for c in ("a", "b")]
    rows[3] |= {"weight_bytes": 8, "kv_bytes": 8, "ms": 500.0}
    (row,) = report(rows)
    assert (row["tokens_per_s"], row["weight_bytes"], row["mean_kv_bytes"], row["peak_rss_bytes"]) == (50, 8, 5, 9)
    assert [one["tokens_per_s"] for one in row["runs"]] == [100, pytest.approx(20 / 0.6)]


def test_the_gap_where_answers_part():
    rows = [
        run(1, [1, 2], top1_prob=[0.9, 0.5], top2_prob=[0.1, 0.4]),
        run(2, [1, 3], top1_prob=[0.9, 0.6], top2_prob=[0.1, 0.4]),
        run(3, [1], top1_prob=[0.9], top2_prob=[0.1]),
    ]
    (row,) = report(rows)
    assert row["div_gap_quantiles"]["0.5"] == pytest.approx(0.15)
    assert row["gap_quantiles"]["0"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"top1_prob": [0.5, 1.1]}, r"^top1_prob\[1\] is 1.1, not a probability$"),
        ({"top1_prob": [-0.1, 1]}, r"^top1_prob\[0\] is -0.1, not a probability$"),
        ({"top1_prob": [0.5]}, "^top1_prob has 1 values, tokens has 2$"),
        ({"top1_prob": [0.5, 0.5], "top2_prob": [0.5]}, "^top2_prob has 1 values, tokens has 2$"),
        ({"top1_prob": [0.5, 0.5], "top2_prob": [0.5, 0.6]}, r"^top2_prob\[1\] is above top1_prob\[1\]$"),
        ({"logprobs": [-1, 0.5]}, r"^logprobs\[1\] is 0.5, above 0"),
        ({"logprobs": [-1]}, "^logprobs has 1 values, tokens has 2$"),
        ({"id": None}, "^missing required field `id`$"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(fields, why):
    with pytest.raises(RowError, match=why):
        gathered([run(1, [1, 2]) | fields])


def test_rounding_above_one_is_no_contradiction():
    assert report([run(1, [1], top1_prob=[1.0000001]), run(2, [1], logprobs=[1e-7])])[0]["div_percent"] == 0


# --- the output of a batch


def batch_line(name="r1", tokens=("a", "b"), **body):
    content = [
        {
            "token": token,
            "logprob": float(np.log(0.5)),
            "top_logprobs": [{"token": "z", "logprob": float(np.log(p))} for p in (0.25, 0.5)],
        }
        for token in tokens
    ]
    choice = {"index": 0, "message": {"content": "".join(tokens)}, "logprobs": {"content": content}}
    body = {"model": "m", "choices": [choice], "usage": {"completion_tokens": len(tokens)}, **body}
    return view(id="batch-17", custom_id=name, response={"status_code": 200, "body": body})


def test_a_line_of_a_batch_is_an_answer():
    (answer,) = answers_of(batch_line(), "batch_size=8.jsonl")
    assert (answer.id, answer.fields) == ("r1", {"model": "m", "batch_size": "8"})
    assert (answer.tokens, answer.text, answer.n_tokens) == (["a", "b"], "ab", 2)
    assert answer.top1 == pytest.approx([0.5, 0.5])
    assert answer.gaps == pytest.approx([0.25, 0.25])


def test_a_choice_is_a_sample():
    choices = [{"index": i, "message": {"content": "x"}} for i in range(2)]
    answers = list(answers_of(batch_line(choices=choices), "f"))
    assert [(one.sample, one.n_tokens, one.tokens, one.text) for one in answers] == [
        (0, None, None, "x"),
        (1, None, None, "x"),
    ]


def test_without_log_probabilities_there_are_lengths():
    (answer,) = answers_of(batch_line(choices=[{"index": 0}]), "f")
    assert (answer.tokens, answer.top1, answer.n_tokens) == (None, None, 2)


def test_without_alternatives_there_are_no_gaps():
    content = [{"token": "a", "logprob": -0.5, "top_logprobs": []}]
    (answer,) = answers_of(batch_line(choices=[{"index": 0, "logprobs": {"content": content}}]), "f")
    assert answer.top1 == pytest.approx([np.exp(-0.5)])
    assert answer.gaps is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (view(custom_id="r", response={"status_code": 400, "body": None}), "failed with status 400"),
        (
            view(custom_id="r", response={"body": {"choices": 3}}),
            r"response: Expected `array`, got `int` - at `\$.body",
        ),
        (view(id="r", response={"status_code": 200}), "has a `response` but no `custom_id`"),
    ],
)
def test_a_line_that_holds_no_answer_is_refused(line, why):
    with pytest.raises(RowError, match=why):
        list(answers_of(line, "f"))


# --- what must hold of any runs

drawn = st.integers(2, 4).flatmap(
    lambda configs: st.lists(
        st.lists(st.lists(st.integers(0, 1), max_size=5), min_size=configs, max_size=configs), min_size=1, max_size=4
    )
)


@given(drawn, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_and_cutting_loses_nothing(problems, random):
    rows = []
    for name, answers in enumerate(problems):
        for size, tokens in enumerate(answers):
            top1 = [random.random() for _ in tokens]
            gaps = {"top1_prob": top1, "top2_prob": [p * random.random() for p in top1]}
            rows.append(run(size, tokens, name=name, correct=random.randint(0, 1), **gaps))
    (row,) = report(rows)
    random.shuffle(rows)
    for whole in (False, True):
        (other,) = report(rows, whole=whole)
        assert {k: v for k, v in other.items() if k != "runs"} == {k: v for k, v in row.items() if k != "runs"}
        by_config = lambda one: one["config"]  # noqa: E731
        assert sorted(other["runs"], key=by_config) == sorted(row["runs"], key=by_config)


@given(drawn)
def test_gathering_is_the_same_as_computing_on_all(problems):
    rows = [
        run(size, tokens, name=name, top1_prob=[(size + j) / 20 for j in range(len(tokens))])
        for name, answers in enumerate(problems)
        for size, tokens in enumerate(answers)
    ]
    (row,) = report(rows)
    indices = [div_index(answers) for answers in problems]
    ends = [len(answers[0]) if index < 0 else index for answers, index in zip(problems, indices, strict=True)]
    stds = [
        position_stds([[(size + j) / 20 for j in range(end)] for size in range(len(answers))])
        for answers, end in zip(problems, ends, strict=True)
    ]
    assert row["n_diverged"] == sum(index >= 0 for index in indices)
    assert row["avg_std_top1_prob"] == avg_std_top1_prob(stds)


# --- for people


def test_a_table_leaves_out_what_nobody_has():
    rows = report([run(1, [1], top1_prob=[0.5]), run(2, [1], top1_prob=[0.5001])])
    (row,) = for_people(rows)
    assert row["precision"] == "bf16"
    assert row["Avg_Std@top1 e-4"] == "0.7071"
    assert "tok/s" not in row
    assert "Std@Acc %" not in row
    assert for_people([]) == []


def test_the_report_is_json():
    json.dumps(report([run(1, [1], correct=1), run(2, [2], correct=0)]), allow_nan=False)
