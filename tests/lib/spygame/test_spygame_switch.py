"""When the stage of training changes: the numbers of the rule as the paper has it, and the code's cycle."""

from __future__ import annotations

import json

import pytest

from toolroll.errors import RowError, ToolrollError
from toolroll.spygame.switch import Rule, Switch

OFF = {"patience": 0}


def switches(accuracy, na, count, **rule):
    """(iteration, new stage, averages) of all switches; accuracy and na are functions of stage and iteration."""
    switch = Switch.begun(Rule(**rule))
    found = []
    for number in range(1, count + 1):
        told = switch.take(accuracy(switch.stage, number), na(switch.stage, number))
        if told.switched:
            found.append((number, told.stage[0].upper(), round(told.accuracy_ema, 6), round(told.na_ema, 6)))
    return found


def always(value):
    return lambda stage, number: value


def per_stage(decision, clue):
    return lambda stage, number: decision if stage == "decision" else clue


def test_all_right_for_ever():
    assert switches(always(1), always(0), 100, **OFF) == [(45, "C", 0.90056, 0)]


def test_clues_that_fool_the_others():
    found = switches(per_stage(1, 0), always(0), 120, **OFF)
    assert [one[:3] for one in found] == [
        (45, "C", 0.90056),
        (53, "D", 0.59745),
        (81, "C", 0.904263),
        (89, "D", 0.599906),
        (117, "C", 0.904847),
    ]


def test_clues_that_nobody_can_judge():
    found = switches(always(1), per_stage(0, 1), 120, **OFF)
    assert [(one[0], one[1]) for one in found] == [(45, "C"), (59, "D"), (91, "C"), (103, "D")]
    assert [one[3] for one in found[1:]] == [0.512325, 0.099243, 0.513267]


def test_too_many_that_abstain():
    switch = Switch.begun(Rule(**OFF))
    told = [switch.take(1, 0.2) for _ in range(200)]
    assert not any(one.switched for one in told)
    assert told[-1].na_ema == pytest.approx(0.199993, abs=1e-6)


def test_nearly_all_right():
    assert [one[:3] for one in switches(always(0.95), always(0), 200, **OFF)] == [(58, "C", 0.901505)]


def test_a_start_with_clues():
    found = switches(always(1), always(0), 100, start="clue", **OFF)
    assert [one[:3] for one in found] == [(5, "D", 0.226219), (45, "C", 0.90056)]


def test_without_memory_only_the_dwell_time_counts():
    cycle = [1] * 5 + [0] * 6 + [1]
    found = switches(lambda stage, number: cycle[(number - 1) % 12], always(0), 20, rho=0.0, **OFF)
    assert [one[:2] for one in found] == [(5, "C"), (10, "D"), (15, "C"), (20, "D")]


def test_patience():
    found = switches(always(0.5), always(0), 100)
    assert [one[:2] for one in found] == [
        *[(20, "C"), (25, "D"), (45, "C"), (50, "D"), (70, "C"), (75, "D"), (95, "C"), (100, "D")]
    ]


def test_averages_made_up_for_their_start():
    found = switches(always(0.95), always(0), 30, ema_debias=True, **OFF)
    assert found == [(5, "C", 0.95, 0)]


@pytest.mark.parametrize("length", [1, 3])
def test_a_fixed_cycle(length):
    switch = Switch.begun(Rule(rule="cycle", cycle_length=length))
    stages = [switch.stage, *(switch.take(1, 0).stage for _ in range(20))]
    assert stages == ["decision" if step % (2 * length) < length else "clue" for step in range(21)]


def test_a_process_an_iteration_gives_the_same():
    rule = Rule()
    whole, last = Switch.begun(rule), Switch.begun(rule)
    for number in range(1, 131):
        row = (0.97 if number % 40 < 30 else 0.1, (number % 7) / 20)
        last = Switch.resumed(json.loads(json.dumps(last.as_dict())), rule)
        assert last.take(*row) == whole.take(*row)


def test_what_came_before_changes_nothing():
    switch = Switch.begun(Rule())
    assert switch.take(1, 0, 7).step == 7
    before = switch.as_dict()
    assert switch.take(0, 1, 7) is None
    assert switch.take(0, 1, 3) is None
    assert switch.as_dict() == before
    assert switch.take(1, 0).step == 8


@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.1, float("inf")])
def test_what_is_no_share(share):
    switch = Switch.begun(Rule())
    with pytest.raises(RowError, match="not a share"):
        switch.take(share, 0)
    with pytest.raises(RowError, match="not a share"):
        switch.take(0, share)
    assert switch == Switch.begun(Rule())


def test_the_state_of_another_rule_is_refused():
    saved = Switch.begun(Rule()).as_dict()
    with pytest.raises(ToolrollError, match=r"other settings \(rho 0.95, not 0.9\)"):
        Switch.resumed(saved, Rule(rho=0.9))


@pytest.mark.parametrize(
    "broken",
    [
        *({}, [], None, {"stage": 3}, {"stage": "x"}, {"dwell": "much"}, {"accuracy": None}),
        *({"dwell": -1}, {"step": True}, {"seen": 0.5}, {"accuracy": 7}, {"na": -0.1}, {"na": float("inf")}),
    ],
)
def test_what_is_no_state(broken):
    saved = Switch.begun(Rule()).as_dict()
    given = {**saved, **broken} if isinstance(broken, dict) and broken else broken
    with pytest.raises(ToolrollError, match="no state"):
        Switch.resumed(given, Rule())
