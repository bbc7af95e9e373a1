"""What happens to rows: every byte a command does not understand comes out as it went in."""

from __future__ import annotations

import json

import frame
import pytest

every_mapper = pytest.mark.parametrize("command", frame.MAPPERS, ids=str)
every_streamer = pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)

#: Values no command reads, in spellings that a decoder and encoder would change.
STRANGE = [
    b"9223372036854775807",
    b"18446744073709551615",
    b"1180591620717411303424",
    b"1e400",
    b"-0.0",
    b"1.10",
    b"0.1000000000000000055511151231257827",
    b'"caf\xc3\xa9 \xf0\x9f\xa6\x80"',
    b'"caf\\u00e9 \\ud83e\\udd80 \\/ \\u0000"',
    b'{ "b" : [ 1 , 2 ] , "a" : null , "b" : 3 }',
    b"[]",
    b"{}",
]


def strange_line(command: frame.Command, i: int = 0) -> bytes:
    """A good row with strange fields before and behind its own."""
    fields = [b'"odd %d":%s' % (number, value) for number, value in enumerate(STRANGE)]
    own = command.lines(1, start=i).strip()[1:-1]
    return b"{" + b",".join([*fields[:6], own, *fields[6:]]) + b"}\n"


@every_reader
def test_empty_input(command, tmp_path):
    for nothing in (b"", b"\n", b"\n  \n\r\n"):
        result = command.run(tmp_path, stdin=nothing)
        if command.specimen.needs_rows:
            assert (result.rc, result.out, len(result.complaints)) == (1, b"", 1)
        elif command in frame.REDUCERS:
            assert (result.rc, len(command.results(result))) == (0, 1)
        else:
            assert (result.rc, result.out, result.complaints) == (0, b"", [])


@every_reader
def test_blank_lines_are_skipped(command, tmp_path):
    lines = command.lines(3).splitlines(keepends=True)
    plain = command.run(tmp_path, stdin=b"".join(lines))
    spaced = command.run(tmp_path, stdin=b"\n" + b"\n  \n\r\n".join(lines) + b"\n\n")
    assert plain.rc == spaced.rc == 0
    assert len(command.results(spaced)) == len(command.results(plain))
    if command not in frame.REDUCERS:
        assert spaced.out == plain.out


@every_mapper
def test_rows_come_out_in_order_and_the_last_needs_no_newline(command, tmp_path):
    rows = command.lines(20)
    result = command.run(tmp_path, stdin=rows.rstrip(b"\n"))
    assert result.out == command.run(tmp_path, stdin=rows).out
    assert [row["id"] for row in result.rows] == [json.loads(line)["id"] for line in rows.splitlines()]


@every_streamer
def test_unknown_fields_are_kept_with_their_exact_bytes_and_in_order(command, tmp_path):
    line = strange_line(command)
    result = command.run(tmp_path, stdin=line)
    assert result.rc == 0
    (out,) = result.lines
    for number, value in enumerate(STRANGE):
        assert b'"odd %d":%s' % (number, value) in out
    names = [name for name, _ in json.loads(out, object_pairs_hook=list)]
    before = [name for name, _ in json.loads(line, object_pairs_hook=list)]
    assert names[: len(before)] == before
    assert len(set(names)) == len(names)


@every_mapper
def test_a_field_that_exists_is_replaced_in_place(command, tmp_path):
    once = command.run(tmp_path, stdin=strange_line(command))
    twice = command.run(tmp_path, stdin=once.out)
    assert twice.rc == 0
    assert twice.out == once.out


def test_a_replaced_field_leaves_the_others_as_they_are(tmp_path):
    tag = frame.own("tag")
    line = b'{"z": 1e400, "tag" : "old" , "id" :"a","n":1, "last": 1.10}\n'
    (row,) = tag.run(tmp_path, stdin=line).lines
    assert row == b'{"z":1e400,"tag":2.0,"id":"a","n":1,"last":1.10,"seed":677,"label":""}'


def test_a_null_error_field_is_replaced_not_doubled(tmp_path):
    (row,) = frame.own("fail-some").run(tmp_path, "--on-error", "keep", stdin=b'{"error":null,"n":3}\n').lines
    names = [name for name, _ in json.loads(row, object_pairs_hook=list)]
    assert names == ["error", "n", "half"]


def test_white_space_within_a_row_stays(tmp_path):
    (row,) = frame.own("slow-cat").run(tmp_path, stdin=b'  { "id" : "a" , "n" : 1 }  \r\n').lines
    assert row == b'{ "id" : "a" , "n" : 1,"seen":true,"mark":""}'


def test_of_a_doubled_key_the_last_counts(tmp_path):
    assert frame.own("tag").run(tmp_path, stdin=b'{"n":1,"n":5}\n').rows[0]["tag"] == 10


@every_streamer
def test_a_byte_order_mark_and_crlf_change_nothing(command, tmp_path):
    rows = command.lines(3)
    plain = command.run(tmp_path, stdin=rows)
    windows = command.run(tmp_path, stdin=b"\xef\xbb\xbf" + rows.replace(b"\n", b"\r\n"))
    assert windows.rc == plain.rc == 0
    assert windows.out == plain.out


#: What may not stand in a row, and the reason given.
NOT_JSON = [
    (b'"x":NaN', "NaN is not JSON"),
    (b'"x":[1,-Infinity]', "Infinity is not JSON"),
    (b'"x":"\\ud800"', "lone surrogate"),
    (b'"x":"\\udc00\\ud800"', "lone surrogate"),
    (b'"x":"\xff"', "not UTF-8"),
    (b'"x":"\xed\xa0\x80"', "not UTF-8"),
    (b'"x":01', "not JSON"),
    (b'"x":"a\tb"', "not JSON"),
    (b'"x":"\\x41"', "not JSON"),
    (b'"x":' + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    (b'"x":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
    (b'"x":1,', "not JSON"),
    (b'"x":"\\ud83e\\udd80"}', "not JSON"),
    (b'"x', "not JSON"),
]


@every_reader
def test_what_is_not_json_is_refused_with_its_place(command, tmp_path):
    good = command.lines(2).splitlines(keepends=True)
    bad = [good[1].strip()[:-1] + b"," + extra + b"}\n" for extra, _ in NOT_JSON]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join([good[0], *bad]) + good[1])
    result = command.run(tmp_path, "--on-error", "skip", inputs=("in.jsonl",))
    assert result.rc == 0
    for number, ((_, why), complaint) in enumerate(zip(NOT_JSON, result.complaints, strict=True)):
        assert complaint.startswith(f"{command.name}: in.jsonl:{3 + 2 * number}: ")
        assert why in complaint
    if command not in frame.REDUCERS:
        assert result.out == command.run(tmp_path, stdin=b"".join(good)).out


@every_reader
def test_pretty_printed_json_and_a_json_array_get_a_hint(command, tmp_path):
    row = command.specimen.row(0)
    for text in (json.dumps(row, indent=2), json.dumps([row], indent=2), json.dumps([row])):
        result = command.run(tmp_path, stdin=text.encode())
        assert result.rc == 1
        assert "jq -c" in result.complaints[0]


@every_streamer
def test_a_field_of_the_wrong_type_is_refused_with_its_name(command, tmp_path):
    name = "response" if command.name == "step-parse" else "id"
    row = {**command.specimen.row(0), name: {"not": "that"}}
    result = command.run(tmp_path, stdin=json.dumps(row).encode())
    assert result.rc == 1
    assert f"`$.{name}`" in result.complaints[0]


@every_reader
def test_strict_refuses_a_field_that_no_record_has(command, tmp_path):
    row = {**command.specimen.row(0), "prompt_idd": 1}
    result = command.run(tmp_path, "--strict", stdin=json.dumps(row).encode())
    assert (result.rc, result.complaints) == (
        1,
        [f"{command.name}: stdin:1: unknown field `prompt_idd` (did you mean `prompt_id`?)"],
    )
    assert command.run(tmp_path, "--strict", stdin=command.lines(1)).rc == 0
    assert command.run(tmp_path, stdin=json.dumps(row).encode()).rc == 0


@every_streamer
def test_the_same_command_gives_the_same_bytes(command, tmp_path):
    rows = command.lines(5)
    assert command.run(tmp_path, stdin=rows).out == command.run(tmp_path, stdin=rows).out


@pytest.mark.parametrize("command", [frame.own("tag"), *frame.STREAMERS], ids=str)
def test_order_changes_no_row(command, tmp_path):
    rows = command.lines(6).splitlines(keepends=True)
    forward = command.run(tmp_path, stdin=b"".join(rows))
    backward = command.run(tmp_path, stdin=b"".join(reversed(rows)))
    assert sorted(forward.lines) == sorted(backward.lines)


def test_a_table_lines_up(tmp_path):
    total = frame.own("total")
    result = total.run(tmp_path, "--table", stdin=total.lines(4))
    assert result.out == b"name  count  total\nall       4      6\n"
