"""The scripted engine counts, cuts and remembers like a real one."""

import pytest

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Generate, Sampling
from toolroll.models.scripted import END, ByteCodec, ScriptedEngine


def reply(engine, text="q", key=0, **how):
    engine.submit(key, Generate(text, None, Sampling(**how)))
    ((done, completion),) = engine.poll()
    assert done == key
    return completion


@pytest.mark.parametrize(
    ("how", "text", "finish", "stop", "count"),
    [
        ({}, "abc</s>d", "eos", None, 9),
        ({"max_tokens": 9}, "abc</s>d", "eos", None, 9),
        ({"max_tokens": 8}, "abc</s>d", "length", None, 8),
        ({"max_tokens": 3}, "abc", "length", None, 3),
        ({"stop": ("</s>", "zz")}, "abc</s>", "stop", "</s>", 7),
        ({"stop": ("d", "bc")}, "abc", "stop", "bc", 3),
        ({"stop": ("</s>",), "max_tokens": 7}, "abc</s>", "stop", "</s>", 7),
        ({"stop": ("</s>",), "max_tokens": 6}, "abc</s", "length", None, 6),
    ],
)
def test_cuts(how, text, finish, stop, count):
    completion = reply(ScriptedEngine(["abc</s>d"]), **how)
    assert (completion.text, completion.finish, completion.stop) == (text, finish, stop)
    assert len(completion.ids) == len(completion.logprobs) == count
    assert (completion.ids[-1] == END) == (finish == "eos")


@pytest.mark.parametrize("what", ["reply", "error"])
def test_half_a_character_is_not_said(tmp_path, what):
    (tmp_path / "script").write_text(f'{{"match": "a", "reply": "x"}}\n{{"match": ".", "{what}": "x \\ud800"}}\n')
    with pytest.raises(ToolrollError, match=r"script:2: lone surrogate in a string"):
        ScriptedEngine(tmp_path / "script")


def test_turns_follow_each_other_and_are_counted():
    engine = ScriptedEngine(lambda text: text[::-1])
    assert reply(engine, "ab").text == "ba"
    assert reply(engine, "cd").text == "dcabba"
    assert (engine.usage.prefilled, engine.usage.reused, engine.usage.generated) == (4, 5, 10)
    engine.release(0)
    assert reply(engine, "x").text == "x"


def test_ids_win_over_text():
    engine = ScriptedEngine(lambda text: text)
    engine.submit(0, Generate("ignored", (104, 105), Sampling()))
    assert engine.poll()[0][1].text == "hi"


def test_context_limit():
    completion = reply(ScriptedEngine(["abcdef"], max_context=5), "123")
    assert (completion.text, completion.finish) == ("ab", "length")


def test_a_script_that_ends_or_fails():
    engine = ScriptedEngine(["one", RowError("broken")])
    assert reply(engine, key=1).text == "one"
    assert str(reply(engine, key=2)) == "broken"
    assert str(reply(engine, key=3)) == "the script has no more replies"


def test_a_script_in_a_file(tmp_path):
    path = tmp_path / "script.jsonl"
    path.write_text(
        '{"match": "capital of (France|Spain)", "reply": "Paris é"}\n\n'
        '{"match": "boom", "error": "went off"}\n{"match": "^q", "reply": "q?"}\n'
    )
    engine = ScriptedEngine(path)
    assert reply(engine, "the capital of France", key=1).text == "Paris é"
    assert str(reply(engine, "boom", key=2)) == "went off"
    assert reply(engine, "q boo", key=3).text == "q?"
    assert "no line of" in str(reply(engine, "else", key=4))


@pytest.mark.parametrize(
    "line", ["{", '{"match": "("}', '{"match": "(", "reply": "x"}', '{"match": "a", "reply": 3}', "[]"]
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "script.jsonl"
    path.write_text('{"match": "a", "reply": "b"}\n' + line + "\n")
    with pytest.raises(ToolrollError) as caught:
        ScriptedEngine(path)
    assert caught.value.place == f"{path}:2"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ToolrollError, match="cannot be read"):
        ScriptedEngine(tmp_path / "none.jsonl")


def test_chat_and_release():
    engine = ScriptedEngine(lambda text: text)
    assert engine.chat([([{"role": "user", "content": "hi"}], Sampling())])[0].text == "user: hi\nassistant: "
    engine.submit(1, Generate("x", None, Sampling()))
    with pytest.raises(ToolrollError, match="still being written"):
        engine.submit(1, Generate("y", None, Sampling()))
    engine.release(1)
    assert engine.poll() == []


def test_byte_codec():
    codec = ByteCodec()
    assert codec.decode((*codec.encode("é<"), END)) == "é<"
    assert codec.decode((0xC3,)) == "\ufffd"
    pieces = codec.pieces()
    assert (len(pieces), pieces[65], pieces[END]) == (257, b"A", None)
