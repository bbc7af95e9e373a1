"""Episodes: what they are sent, in which order they end, how failures travel, and that nothing is pulled too early."""

import threading
import time

import pytest

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.base import Completion, Generate, Sampling
from toolroll.models.episodes import Fork, complete, drive
from toolroll.models.scripted import ScriptedEngine


def ask(text, **how):
    return Generate(text, None, Sampling(**how))


def once(text):
    done = yield ask(text)
    return done.text


def echo(text):
    return text.upper()


def test_an_episode_of_several_turns_and_searches():
    def episode(question):
        first = yield ask(question, stop=("?",))
        found = yield ("search", first.text)
        second = yield ask(f" [{found}] ")
        return first.text, found, second.text

    engine = ScriptedEngine(lambda text: "what is it? more" if "[" not in text else f"seen {len(text)}")
    ((key, result),) = drive(engine, [("k", episode("q: "))], calls=lambda asked: [f"hits for {asked[0][1]}"])
    assert key == "k"
    assert result == ("what is it?", "hits for what is it?", "seen 38")
    assert [text for _, text, _ in engine.requests][1].startswith("q: what is it? [hits for what is it?] ")


@pytest.mark.parametrize("capacity", [1, 3, 50])
def test_results_come_in_input_order_when_asked(capacity):
    def episode(n):
        for _ in range(n % 4):
            yield ask("x")
        return n

    engine = ScriptedEngine(lambda _: "y", capacity=capacity)
    pairs = [(i, episode(7 * i % 10)) for i in range(20)]
    assert list(drive(engine, pairs, ordered=True)) == [(i, 7 * i % 10) for i in range(20)]


def test_results_come_as_they_end_otherwise():
    def episode(turns):
        for _ in range(turns):
            yield ask("x")
        return turns

    engine = ScriptedEngine(lambda _: "y")
    assert [key for key, _ in drive(engine, [("long", episode(5)), ("short", episode(1))])] == ["short", "long"]


def test_the_input_is_pulled_only_when_there_is_room():
    pulled = []

    def pairs():
        for i in range(100):
            pulled.append(i)
            yield i, once("x")

    results = drive(ScriptedEngine(echo, capacity=4), pairs(), lookahead=1)
    next(results)
    assert len(pulled) == 5
    next(results)
    assert len(pulled) == 6
    assert len(list(results)) == 98


def test_a_slow_first_episode_does_not_let_the_results_behind_it_grow():
    pulled = []
    gate = threading.Event()

    def slow():
        return (yield "how many now?")

    def pairs():
        yield 0, slow()
        for i in range(1, 100):
            pulled.append(i)
            if i == 9:
                gate.set()
            yield i, once("x")

    def calls(asked):
        gate.wait(10)
        time.sleep(0.05)
        return [len(pulled)]

    engine = ScriptedEngine(echo, capacity=4)
    done = list(drive(engine, pairs(), calls=calls, ordered=True, window=10))
    assert [key for key, _ in done] == list(range(100))
    assert done[0][1] == 9


def test_a_slow_handler_does_not_hold_up_the_engine():
    written = []
    gate = threading.Event()

    def search():
        return (yield "search")

    def write():
        for _ in range(3):
            yield ask("x")
            written.append(1)
        gate.set()
        return "written"

    def calls(asked):
        return [gate.wait(10)]

    done = list(drive(ScriptedEngine(echo), [("s", search()), ("w", write())], calls=calls))
    assert done == [("w", "written"), ("s", True)]
    assert len(written) == 3


def test_waiting_calls_go_out_in_one_batch():
    batches = []

    def episode(i):
        return (yield i)

    def calls(asked):
        batches.append(sorted(asked))
        time.sleep(0.01)
        return [-i for i in asked]

    engine = ScriptedEngine(echo, capacity=8)
    done = dict(drive(engine, [(i, episode(i)) for i in range(8)], calls=calls, lookahead=0, workers=1))
    assert done == {i: -i for i in range(8)}
    assert batches == [list(range(8))]


def test_a_failed_completion_fails_its_episode_only():
    engine = ScriptedEngine(lambda text: RowError("broken") if text == "bad" else "fine")
    done = dict(drive(engine, [(text, once(text)) for text in ("good", "bad", "other")]))
    assert str(done.pop("bad")) == "broken"
    assert done == {"good": "fine", "other": "fine"}


def test_an_episode_may_catch_what_is_thrown_into_it():
    def episode():
        try:
            yield "search"
        except ConnectionError as error:
            return f"caught {error}"

    assert list(drive(ScriptedEngine([]), [(1, episode())], calls=lambda _: [ConnectionError("down")])) == [
        (1, "caught down")
    ]


def test_an_exception_let_through_is_the_result():
    def search():
        yield "search"

    def raises(asked):
        raise ConnectionError("down")

    ((_, listed),) = drive(ScriptedEngine([]), [(1, search())], calls=lambda _: [TimeoutError("slow")])
    ((_, raised),) = drive(ScriptedEngine([]), [(1, search())], calls=raises)
    assert isinstance(listed, TimeoutError)
    assert isinstance(raised, ConnectionError)


def test_a_row_error_of_the_episode_is_its_result():
    def episode():
        yield ask("x")
        raise RowError("no query", place="row 3")

    ((_, result),) = drive(ScriptedEngine(echo), [(1, episode())])
    assert str(result) == "row 3: no query"


@pytest.mark.parametrize("error", [UsageError("bad address"), ValueError("a bug"), ToolrollError("no disk")])
def test_other_errors_end_everything(error):
    closed = []

    def waits():
        try:
            yield ask("x")
            yield ask("x")
        finally:
            closed.append(1)

    def breaks():
        yield ask("x")
        raise error

    with pytest.raises(type(error)):
        list(drive(ScriptedEngine(echo), [(1, waits()), (2, breaks())]))
    assert closed == [1]


def test_usage_errors_are_never_one_rows():
    def search():
        yield "search"

    with pytest.raises(UsageError):
        list(drive(ScriptedEngine([]), [(1, search())], calls=lambda _: [UsageError("bad address")]))


def test_stop_admits_no_more_and_finishes_what_is_under_way():
    started, stopped = [], []

    def episode(i):
        started.append(i)
        yield ask("x")
        stopped.append(1)
        yield ask("x")
        return i

    engine = ScriptedEngine(echo, capacity=3)
    done = dict(drive(engine, ((i, episode(i)) for i in range(50)), lookahead=0, stop=lambda: bool(stopped)))
    assert done == {0: 0, 1: 1, 2: 2}
    assert started == [0, 1, 2]


def test_an_input_that_is_not_ready_is_waited_for_only_when_idle():
    events = []

    def pairs():
        yield 0, episode(0)
        events.append("waits for input")
        yield 1, episode(1)

    def episode(i):
        for _ in range(3):
            yield ask("x")
        events.append(f"ends {i}")

    list(drive(ScriptedEngine(echo), pairs(), ready=lambda: False))
    assert events == ["ends 0", "waits for input", "ends 1"]


def test_fork_runs_episodes_at_once_and_gathers_their_results():
    def part(i):
        if i == 2:
            raise RowError("no")
        done = yield ask(str(i))
        found = yield done.text
        return found

    def episode():
        nothing = yield Fork([])
        first = yield Fork([part(i) for i in range(4)])
        second = yield Fork([part(9)])
        return nothing, first, second

    engine = ScriptedEngine(lambda text: f"<{text}>")
    ((key, (nothing, first, second)),) = drive(engine, [("k", episode())], calls=lambda asked: [a + "!" for a in asked])
    assert (key, nothing, second) == ("k", [], ["<9>!"])
    assert first[:2] + first[3:] == ["<0>!", "<1>!", "<3>!"]
    assert isinstance(first[2], RowError)


def test_keys_are_unique():
    with pytest.raises(ToolrollError, match="two episodes under way"):
        list(drive(ScriptedEngine(echo), [(1, once("a")), (1, once("b"))]))


def test_an_effect_nobody_answers():
    def episode():
        yield "search"

    with pytest.raises(ToolrollError, match="nothing here answers str"):
        list(drive(ScriptedEngine([]), [(1, episode())]))


def test_a_handler_that_loses_an_answer():
    def episode():
        yield "search"

    with pytest.raises(ToolrollError, match="answered 2 of 1"):
        list(drive(ScriptedEngine([]), [(1, episode())], calls=lambda _: [1, 2]))


def test_leaving_early_closes_the_episodes_and_frees_the_engine():
    closed = []

    def episode(i):
        try:
            yield ask("x")
            if i:
                yield ask("x")
        finally:
            closed.append(i)

    engine = ScriptedEngine(echo)
    results = drive(engine, [(i, episode(i)) for i in range(3)])
    assert next(results)[0] == 0
    results.close()
    assert sorted(closed) == [0, 1, 2]
    assert engine.poll() == []


def test_complete():
    engine = ScriptedEngine(lambda text: RowError("no") if text == "b" else text.upper(), capacity=2)
    first, second, third = complete(engine, (ask(text) for text in "abc"))
    assert isinstance(first, Completion)
    assert (first.text, first.finish, third.text) == ("A", "eos", "C")
    assert isinstance(second, RowError)
