"""Draws by counter, and the pool they are made from."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.curriculum.draw import independent, nearest, stratified, uniform
from toolroll.curriculum.pool import Pool
from toolroll.errors import ToolrollError


def test_the_stream_of_numbers():
    found = [uniform(1, "arm", c) for c in range(4)]
    assert found == pytest.approx([0.806882626, 0.970429219, 0.184957433, 0.814922592], abs=6e-10)


def test_an_arm_is_where_the_sum_goes_beyond_the_number():
    assert independent(1, 0, 4, [0.2, 0.0, 0.61, 0.19]) == [2, 3, 0, 3]
    assert independent(1, 1, 2, [0.2, 0.0, 0.61, 0.19]) == [3, 0]


def test_an_arm_of_probability_0_is_never_drawn():
    assert set(independent(1, 0, 500, [0.0, 0.7, 0.3 - 1e-15, 0.0])) == {1, 2}


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20), st.integers(0, 300), st.integers(0, 10**6))
def test_stratified_numbers_are_the_rounded_shares(weights, size, start):
    total = sum(weights)
    shares = [weight / total for weight in weights]
    drawn = stratified(7, start, size, shares)
    assert len(drawn) == size
    for arm, share in enumerate(shares):
        assert abs(drawn.count(arm) - size * share) < 1 + 1e-6


def test_the_largest_remainder_gets_what_is_left():
    assert sorted(stratified(1, 0, 10, [0.26, 0.37, 0.37])) == [0] * 2 + [1] * 4 + [2] * 4
    assert sorted(stratified(1, 0, 3, [0.5, 0.5])) == [0, 0, 1]
    assert stratified(1, 0, 40, [0.5, 0.5]) != sorted(stratified(1, 0, 40, [0.5, 0.5]))


def test_the_nearest_tasks_are_taken_once():
    assert nearest([10.0, 50.0, 30.0, 32.0], 31.0, 3) == [2, 3, 1]


ROWS = [{"id": i, "distribution": "b" if i % 3 else "a", "difficulty": float(i)} for i in range(9)]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="pool.jsonl"):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(tmp_path / name)

    return write


def test_a_pool_is_read_by_arm(write):
    for name in ("pool.jsonl", "pool.jsonl.gz"):
        pool = Pool.read(write([*ROWS, {"error": {"why": "w", "where": "x:1"}}], name), by="distribution")
        ids = {arm: [json.loads(task.line)["id"] for task in tasks] for arm, tasks in pool.tasks.items()}
        assert ids == {"a": [0, 3, 6], "b": [1, 2, 4, 5, 7, 8]}


def test_arms_may_be_numbers(write):
    assert sorted(Pool.read(write(ROWS), by="id").tasks) == [str(i) for i in range(9)]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": 1}, "pool.jsonl:2: missing `distribution`"),
        ({"distribution": ""}, "pool.jsonl:2: missing `distribution`"),
        ({"distribution": [1]}, "pool.jsonl:2: Expected"),
        ([1], "pool.jsonl:2: an array"),
    ],
)
def test_a_row_without_an_arm_is_an_error(write, row, why):
    with pytest.raises(ToolrollError, match=why):
        Pool.read(write([ROWS[0], row]), by="distribution")


def test_a_pool_and_a_state_must_be_of_each_other(write):
    with pytest.raises(ToolrollError, match="has no tasks"):
        Pool.read(write([]), by="distribution")
    pool = Pool.read(write(ROWS), by="distribution")
    pool.check(["a", "b"])
    with pytest.raises(ToolrollError, match="tasks of 'b', which is no arm"):
        pool.check(["a"])
    with pytest.raises(ToolrollError, match="no task of arm 'c'"):
        pool.check(["a", "b", "c"])
    pool.check(["a", "b", "c"], frozen=["c"])


def test_a_pass_takes_each_task_once_and_the_next_is_shuffled_anew(write):
    pool = Pool.read(write(ROWS), by="distribution")
    passes = [[json.loads(pool.next_of_pass(1, "b", 6 * n + i).line)["id"] for i in range(6)] for n in range(3)]
    assert all(sorted(one) == [1, 2, 4, 5, 7, 8] for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_difficulties(write):
    assert Pool.read(write(ROWS), by="distribution", difficulty="difficulty").difficulties() == {"a": 3.0, "b": 4.5}
    with pytest.raises(ToolrollError, match="a task has no difficulty"):
        Pool.read(write(ROWS), by="distribution", difficulty="hardness").difficulties()
