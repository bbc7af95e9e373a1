"""Problems and sample spaces out of files: every form that is read, and one line about what is not. And equality."""

import gzip
import json

import pytest

from toolroll.abduction.equality import CHECKS, json_equal, pair_input, python_check
from toolroll.abduction.lookup import Lookup, lookups
from toolroll.abduction.problems import Problem, Problems, Space, Spaces
from toolroll.errors import RowError, ToolrollError, UsageError


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


# --- problems


def test_forms_of_a_problem():
    pairs = ((b"[1,2]", b'"on"'), (b"[]", b"null"))
    for row in (
        {"observations": [[[1, 2], "on"], [[], None]]},
        {"train": [[[1, 2], "on"], [[], None]]},
        {"train": [{"input": [1, 2], "output": "on"}, {"output": None, "input": []}], "test": None},
        {"observations": [[[1, 2], "on"], [[], None]], "train": [[0, 0]]},
    ):
        assert Problem.of(json.dumps(row).encode()).observations == pairs


def test_test_pairs_count_if_all_outputs_are_known():
    row = {"train": [[1, 2]], "test": [[3, 4], {"input": 5, "output": 6}]}
    assert Problem.of(json.dumps(row).encode()).test == ((b"3", b"4"), (b"5", b"6"))
    row["test"].append({"input": 7})
    assert Problem.of(json.dumps(row).encode()).test == ()


def test_numbers_and_texts_stay_what_they_are():
    problem = Problem.of('{"observations": [[123456789012345678901234567890, "\\u00e9 é"], [1.0, 1]]}'.encode())
    assert problem.observations == ((b"123456789012345678901234567890", '"é é"'.encode()), (b"1.0", b"1"))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": 1}, "no `observations` and no `train`"),
        ({"id": 1, "train": []}, "`train` is empty"),
        ({"id": 1, "observations": [{"input": 1}]}, "`observations` has an input without an output"),
        ({"observations": [[1, 2]]}, "no `id`"),
        ({"id": 1, "observations": [[1, 2, 3]]}, "Expected `array` of length 2"),
        ({"id": 1, "observations": {"1": 2}}, "expected `array | null`, got `object`"),
        ('{"id": 1, "observations": [[NaN, 2]]}', "NaN is not JSON"),
        ("[1]", "an array, not an object"),
        ('{"id":', "not JSON"),
    ],
)
def test_what_is_no_problem(tmp_path, row, why):
    good = {"id": 0, "observations": [[1, 2]]}
    with pytest.raises(ToolrollError) as error:
        Problems.read([lines(tmp_path / "p.jsonl", good, "", row)])
    assert error.value.place == f"{tmp_path}/p.jsonl:3"
    assert why.lower() in error.value.why.lower()
    assert "\n" not in str(error.value)


def test_a_problem_is_found_by_its_id(tmp_path):
    first = lines(tmp_path / "a.jsonl", {"id": 7, "dataset": "toy", "observations": [[1, 2]]})
    second = tmp_path / "b.jsonl.gz"
    second.write_bytes(gzip.compress(b'{"id":"8","train":[[3,4]]}\n{"id":"9","error":{"why":"w","where":"f:1"}}\n'))
    problems = Problems.read([first, str(second)])
    assert problems.of(b"", "7", None).dataset == "toy"
    assert problems.of(b"", 8, 5).observations == ((b"3", b"4"),)
    with pytest.raises(RowError, match="no problem has the id '9'"):
        problems.of(b'{"observations":[[1,2]]}', "9", None)


def test_problems_of_one_id_differ_in_the_number_of_observations(tmp_path):
    rows = [{"id": "a", "n_obs": n, "observations": [[i, i] for i in range(n)]} for n in (1, 2)]
    problems = Problems.read([lines(tmp_path / "p", *rows)])
    assert len(problems.of(b"", "a", 2).observations) == 2
    with pytest.raises(RowError, match="is there with n_obs 1, 2, the row has no `n_obs`"):
        problems.of(b"", "a", None)
    with pytest.raises(RowError, match="the row has n_obs 3"):
        problems.of(b"", "a", 3)
    assert len(Problems.read([lines(tmp_path / "q", rows[1])]).of(b"", "a", None).observations) == 2
    with pytest.raises(ToolrollError, match="a second problem 'a' with n_obs 2"):
        Problems.read([lines(tmp_path / "r", rows[1], rows[1])])


def test_without_files_a_row_is_its_own_problem():
    assert Problems.read([]).of(b'{"id":1,"train":[[1,2]]}', 1, None).observations == ((b"1", b"2"),)
    with pytest.raises(RowError, match="--problems"):
        Problems.read([]).of(b'{"id":1}', 1, None)
    with pytest.raises(RowError, match="Expected `array"):
        Problems.read([]).of(b'{"id":1,"train":"x"}', 1, None)


# --- spaces


def test_an_input_that_comes_again_counts_once(tmp_path):
    said = []
    path = lines(tmp_path / "s.jsonl", "[1, 2]", "", "[1,2]", '{"a": "\\u00e9"}', '{"a":"é"}', "1", "1.0", "true")
    space = Space.read(path, lambda *what: said.append(what))
    assert space.inputs == (b"[1,2]", '{"a":"é"}'.encode(), b"1", b"1.0", b"true")
    assert said == [("2 of 7 inputs came before and count once", path)]


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("[1]\n[2\n", "not JSON", 2),
        ("NaN\n", "NaN is not JSON", 1),
        ("[]\n\\\n", "not JSON", 2),
        ("1 2\n", "not JSON", 1),
    ],
)
def test_a_line_that_is_no_input(tmp_path, text, why, line):
    (tmp_path / "s").write_text(text)
    with pytest.raises(ToolrollError, match=why) as error:
        Space.read(str(tmp_path / "s"), print)
    assert error.value.place == f"{tmp_path}/s:{line}"


def test_a_space_has_inputs_and_is_a_file(tmp_path):
    with pytest.raises(ToolrollError, match="no inputs"):
        Space.read(lines(tmp_path / "empty"), print)
    with pytest.raises(ToolrollError, match="No such file"):
        Space.read(str(tmp_path / "missing"), print)
    with pytest.raises(UsageError, match="stdin"):
        Space.read("-", print)


def test_a_data_set_chooses_its_space(tmp_path):
    one, two, odd = (lines(tmp_path / name, json.dumps(name)) for name in ("one", "two", "a=b"))
    spaces = Spaces.read([f"x={one}", f"y={two}"], print)
    assert spaces.of("y").inputs == (b'"two"',)
    with pytest.raises(RowError, match="no space for a row with dataset 'z', only for x, y"):
        spaces.of("z")
    with pytest.raises(RowError, match="a row with no `dataset`"):
        spaces.of(None)
    spaces = Spaces.read([f"x={one}", two], print)
    assert [spaces.of(name).name for name in ("x", "z", None)] == [one, two, two]
    assert Spaces.read([odd], print).of("a").inputs == (b'"a=b"',)
    with pytest.raises(UsageError, match="a second space for all data sets"):
        Spaces.read([one, two], print)
    with pytest.raises(UsageError, match="a second space for x"):
        Spaces.read([f"x={one}", f"x={two}"], print)


# --- equality


@pytest.mark.parametrize(
    ("output", "wanted", "equal"),
    [
        (b"[1,2]", b"[1,2]", True),
        (b"[1.0,2e0]", b"[1,2]", True),
        (b"true", b"1", False),
        (b"[0]", b"[false]", False),
        (b"true", b"true", True),
        (b'{"a":1,"b":[true]}', b'{"b":[true],"a":1}', True),
        (b'{"a":1}', b'{"a":1,"b":2}', False),
        (b'"1"', b"1", False),
        (b"null", b"null", True),
        (None, b"null", False),
        (b"NaN", b"1", False),
        (b"[1]", b"[1,2]", False),
        (b'"\\u00e9"', '"é"'.encode(), True),
        (b"12345678901234567890123", b"12345678901234567890123", True),
        (b"12345678901234567890123", b"12345678901234567890124", False),
        (b"[" * 100_000, b"1", False),
    ],
)
def test_json_equality(output, wanted, equal):
    assert json_equal(output, wanted) is equal


def verdict(code, given, wanted):
    names = {"__name__": "hypothesis"}
    exec(python_check(code), names)
    (agrees,) = (value for value in names.values() if type(value) is type(lambda: 0))
    return agrees(json.loads(pair_input(given, wanted)))


@pytest.mark.parametrize(
    ("code", "given", "wanted", "equal"),
    [
        *CHECKS,
        ("def f(x):\n    return x == 1", b"1", b"1", True),
        ("def f(x):\n    return (1, 2)", b"0", b"[1,2]", False),
        ("from collections import Counter\ndef f(x):\n    return Counter(x)", b'"aab"', b'{"a":2,"b":1}', True),
        ("def f(x):\n    return {1: 2}", b"0", b'{"1":2}', False),
        ("COUNT = []\ndef f(x):\n    COUNT.append(x)\n    return len(COUNT)", b"0", b"1", True),
    ],
)
def test_python_equality(code, given, wanted, equal):
    assert verdict(code, given, wanted) is equal


# --- look-ups

OBSERVED = [b"[1,2]", b"[]", b'"on"', b"7", b"[[1],[2]]"]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(x):\n    return 1 if x == [1, 2] else 2", [Lookup(2, "==", 0)]),
        ("def f(x):\n    return 1 if (1, 2) != x else 2", [Lookup(2, "!=", 0)]),
        ("def f(x):\n    return x in ([3], [1, 2], 'on')", [Lookup(2, "in", 0), Lookup(2, "in", 2)]),
        ("SEEN = [[1, 2]]\ndef f(x):\n    return x not in SEEN", [Lookup(1, "in", 0)]),
        ("def f(x):\n    return {'[1, 2]': 3, (9,): 1}[str(x)]", [Lookup(2, "key", 0)]),
        ("def f(x):\n    if str(x) == '[1,2]':\n        return 1", [Lookup(2, "==", 0)]),
        ("def f(x):\n    return {7: 1}.get(x)", [Lookup(2, "key", 3)]),
        ("def f(x):\n    if x == [[1], [2]] or x == 7:\n        return 1", [Lookup(2, "==", 3), Lookup(2, "==", 4)]),
        ("def f(x):\n    match x:\n        case [1, 2]:\n            return 1", [Lookup(3, "case", 0)]),
        ("def f(x):\n    match x:\n        case 'on':\n            return 1", [Lookup(3, "case", 2)]),
        ("def f(x):\n    return x == []", []),
        ("def f(x):\n    return [1, 2] + x", []),
        ("def f(x):\n    return x[0] < 7", []),
        ("def f(x):\n    return {**x, 'a': 1} if x in {'b'} else len(x) == 3", []),
        ("def f(x", []),
    ],
)
def test_lookups(code, found):
    assert lookups(code, OBSERVED) == found
