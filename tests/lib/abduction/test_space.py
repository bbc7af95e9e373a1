"""Sample spaces and observations: the released numbers, and spaces of one's own."""

import hashlib
import json
import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.abduction.space import SEED, made, paper_space, read_spec, sequences, spec_file
from toolroll.abduction.tasks import Task, draw_observations, inputs_of, read_tasks
from toolroll.errors import ToolrollError

DIGITS = 'of = { kind = "numbers", first = 1, last = 9 }'


def digest(values):
    """The checksum that spaces are known by: of their values, as Python's json writes them, sorted."""
    return hashlib.sha256("\n".join(sorted(map(json.dumps, values))).encode()).hexdigest()[:16]


def spec(text):
    return read_spec(text.encode(), toml=True)


def of(text, seed=0, **how):
    return made(spec(text), random.Random(seed), **how)


# --- the paper's


@pytest.mark.parametrize(
    ("kind", "per_length", "size", "checksum"),
    [
        ("list-function", 1000, 15_101, "a9a1dd4cd4e79a5f"),
        ("acre", 1000, 7_049, "8b44ce9c7b357230"),
        ("list-function", 100, 1_601, "dbb7b6e69c05f367"),
        ("acre", 100, 749, "d3621fecdd7eaf81"),
    ],
)
def test_the_papers_spaces(kind, per_length, size, checksum):
    values = made(paper_space(kind, per_length), random.Random(SEED))
    assert len(values) == size
    assert digest(values) == checksum
    assert not [value for value in values if len(set(value)) < len(value)]


def test_with_repeats_lists_have_repeated_elements():
    values = made(paper_space("list-function", 100), random.Random(SEED), repeats=True)
    assert len(values) == 1_601
    assert sum(len(set(value)) < len(value) for value in values) > 400


# --- one's own


def test_lists_of_each_length():
    few = of('kind = "lists"\nlengths = [0, 2]\nof = { kind = "values", values = [1, "a"] }')
    assert few == [[], [1], ["a"], [1, 1], [1, "a"], ["a", 1], ["a", "a"]]
    text = 'kind = "lists"\nlengths = [1, 3]\ncount = 5\ncounts = { 3 = 7 }\n' + DIGITS
    many = of(text)
    assert [len(value) for value in many] == [1] * 5 + [2] * 5 + [3] * 7
    assert len(set(map(tuple, many))) == 17
    assert of(text) == many != of(text, seed=1)


def test_where_there_are_fewer_than_asked_for_all_are_made():
    text = 'kind = "lists"\nlengths = [3, 3]\ncount = 20\nof = { kind = "numbers", first = 1, last = 3 }'
    assert sorted(of(text)) == sorted(map(list, permutations([1, 2, 3])))
    assert len(of(text, repeats=True)) == 20
    assert len(of(text + "\nrepeats = true")) == 20


def test_strings_grids_and_records():
    assert of('kind = "strings"\nalphabet = "ab"\nlengths = [0, 2]') == ["", "a", "b", "aa", "ab", "ba", "bb"]
    grids = of(
        'kind = "grids"\nrows = [1, 2]\ncolumns = [2, 2]\ncount = 3\nof = { kind = "numbers", first = 0, last = 1 }'
    )
    assert [(len(grid), len(grid[0])) for grid in grids] == [(1, 2)] * 3 + [(2, 2)] * 3
    assert len({json.dumps(grid) for grid in grids}) == 6
    text = (
        'kind = "records"\ncount = 4\nfields.n = { kind = "numbers", first = 1, last = 3 }\n'
        'fields.s = { kind = "words", words = [["a", "b"], ["c"]] }'
    )
    assert len(of(text)) == 4
    whole = of(text.replace("count = 4", "count = 6"))
    assert whole == [{"n": n, "s": s} for n in (1, 2, 3) for s in ("a c", "b c")]
    assert all(value in whole for value in of(text))


def test_specs_within_specs():
    values = of(
        'kind = "lists"\nlengths = [1, 1]\n[of]\nkind = "lists"\nlengths = [0, 1]\n'
        'of = { kind = "values", values = [[0], {}, [0]] }'
    )
    assert values == [[[]], [[[0]]], [[{}]]]


def test_a_value_that_comes_again_is_one():
    assert of('kind = "values"\nvalues = [1, 1.0, true, 1, "1", { b = 1, a = 2 }, { a = 2, b = 1 }]') == [
        *(1, 1.0, True, "1"),
        {"a": 2, "b": 1},
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind = 3", "no spec"),
        ('kind = "sets"', "no spec"),
        ('kind = "lists"\nlengths = [0, 2]', "no spec: .*`of`"),
        ('kind = "numbers"\nfirst = 1\nlast = 2\nmiddle = 3', "no spec: .*middle"),
        ('kind = "lists"\nlengths = [2, -1]\nof = { kind = "values", values = [1] }', "no spec"),
        ("kind =", "no spec"),
    ],
)
def test_no_spec(text, why):
    with pytest.raises(ToolrollError, match=why) as error:
        spec(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            'kind = "lists"\nlengths = [4, 4]\ncount = 3\nof = { kind = "values", values = [1, 2] }',
            "no list of length 4",
        ),
        ('kind = "lists"\nlengths = [0, 1]\ncounts = { 2 = 3 }\nof = { kind = "values", values = [1] }', "names '2'"),
        ('kind = "numbers"\nfirst = 0\nlast = 99999999', "too large"),
    ],
)
def test_a_spec_that_cannot_be(text, why):
    with pytest.raises(ToolrollError, match=why):
        of(text)


def test_spec_files(tmp_path):
    (tmp_path / "s.json").write_text('{"kind": "values", "values": [null]}')
    assert made(spec_file(str(tmp_path / "s.json")), random.Random(0)) == [None]
    (tmp_path / "s.toml").write_text("{}")
    for name, why in (("s.toml", "no spec"), ("missing", "No such file")):
        with pytest.raises(ToolrollError, match=why) as error:
            spec_file(str(tmp_path / name))
        assert error.value.place == str(tmp_path / name)


@given(st.integers(1, 6), st.dictionaries(st.integers(0, 5), st.integers(1, 30)), st.booleans(), st.integers())
def test_sequences_are_different_and_as_many_as_there_can_be(size, lengths, repeats, seed):
    lengths = {length: count for length, count in lengths.items() if repeats or length <= size or size**length <= count}
    found = list(sequences(range(size), lengths, random.Random(seed), repeats=repeats))
    assert len(set(found)) == len(found)
    for length, count in lengths.items():
        mine = [value for value in found if len(value) == length]
        possible = size**length if repeats or size**length <= count else len(set(permutations(range(size), length)))
        assert len(mine) == min(count, possible)


# --- tasks and observations


def task(i, pairs=6, **more):
    return {"idx": i, "train": [{"input": [i, k], "output": k} for k in range(pairs)], **more}


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_forms_of_task_files(tmp_path):
    rows = written(
        tmp_path / "rows.jsonl", task(1, 2, test=[{"input": 0}]), {"id": "b", "train": [[1, 2]], "test": [[3, 4]]}
    )
    one, two = read_tasks([rows], prefix="toy/")
    assert (one.id, two.id) == ("toy/1", "b")
    assert one.pairs == ((b"[1,0]", b"0"), (b"[1,1]", b"1"))
    assert one.inputs == (b"[1,0]", b"[1,1]", b"0")
    assert (one.test, two.test) == ((), ((b"3", b"4"),))
    arc = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}
    single = written(tmp_path / "0ab1.json", arc)
    (tmp_path / "many.json").write_text(json.dumps({"x": arc, "y": arc}, indent=1))
    assert [t.id for t in read_tasks([single, str(tmp_path / "many.json")])] == ["0ab1", "x", "y"]
    assert inputs_of(read_tasks([single, str(tmp_path / "many.json")])) == [b"[[1]]", b"[[3]]"]


def test_stored_strings_are_literals_if_they_are_said_to_be(tmp_path):
    path = written(tmp_path / "t", {"idx": 0, "train": [{"input": "[1, 2]", "output": "[]"}]})
    assert next(read_tasks([path])).pairs == ((b'"[1, 2]"', b'"[]"'),)
    assert next(read_tasks([path], literals=True)).pairs == ((b"[1,2]", b"[]"),)
    bad = written(tmp_path / "u", {"idx": 0, "train": [{"input": "[1,", "output": "[]"}]})
    with pytest.raises(ToolrollError, match="no Python literal"):
        list(read_tasks([bad], literals=True))


@pytest.mark.parametrize(
    ("text", "why", "place"),
    [
        ("", "no tasks", ""),
        ('{"train": [[1, 2]]}\n{"train": [[1, 2]]}\n', "no `id` and no `idx`", ":1"),
        ('{"idx": 1, "train": [[1, 2]]}\n{"idx": 2}\n', "missing required field `train`", ":2"),
        ('{"idx": 1, "train": [[1]]}', "array", ""),
        ('{"x": {"train": 3}}', "array", ": x"),
        ("{\n", "start of a record", ""),
        ("[1]", "an array", ""),
    ],
)
def test_what_is_no_task(tmp_path, text, why, place):
    (tmp_path / "t").write_text(text)
    with pytest.raises(ToolrollError, match=why) as error:
        list(read_tasks([str(tmp_path / "t")]))
    assert error.value.place == f"{tmp_path}/t{place}"


def tasks(count, pairs=6):
    return [
        Task(str(i), tuple((b"%d" % k, b'"on"' if k % 2 else b'"off"') for k in range(pairs)), ()) for i in range(count)
    ]


def test_the_papers_problems_come_in_the_papers_order():
    """The first ids of the released files, which depend on the numbers of tasks and pairs alone."""
    lists = draw_observations(tasks(250, 16), 4, count=100, seed=2025)
    assert [task.id for task, _ in lists][:3] == ["142", "21", "165"]
    acre = draw_observations(tasks(100, 10), 4, count=100, seed=2025, one_of=(b'"on"', b'"off"'))
    assert [task.id for task, _ in acre][:3] == ["71", "10", "82"]
    assert sorted(int(task.id) for task, _ in acre) == list(range(100))


def test_draws():
    some = draw_observations(tasks(30), 3, count=10, seed=1)
    assert len({task.id for task, _ in some}) == 10
    assert all(len(set(pairs)) == 3 and set(pairs) <= set(task.pairs) for task, pairs in some)
    assert (
        draw_observations(tasks(30), 3, count=10, seed=1) == some != draw_observations(tasks(30), 3, count=10, seed=2)
    )
    assert draw_observations([*tasks(30), *tasks(5)], 3, count=30, seed=1)[0][0].id in {str(i) for i in range(30)}


def test_tasks_with_too_few_pairs_are_left_out():
    mixed = [*tasks(3, 2), *[Task(f"x{i}", t.pairs, ()) for i, t in enumerate(tasks(3, 4))]]
    assert {task.id for task, _ in draw_observations(mixed, 3, count=10, seed=0)} == {"x0", "x1", "x2"}


def test_one_of_each_output_comes_first():
    for _, pairs in draw_observations(tasks(20), 4, count=20, seed=3, one_of=(b'"on"', b'"off"')):
        assert [pair[1] for pair in pairs[:2]] == [b'"on"', b'"off"']
        assert len(set(pairs)) == 4
    with pytest.raises(ToolrollError, match='no pair with the output "maybe"'):
        draw_observations(tasks(2), 2, count=2, seed=0, one_of=(b'"on"', b'"maybe"'))
    with pytest.raises(ToolrollError, match="fewer than 5 pairs"):
        draw_observations(
            [Task("a", (*tasks(1, 4)[0].pairs, (b"9", b"0")), ())], 5, count=1, seed=0, one_of=(b'"on"', b'"off"')
        )
