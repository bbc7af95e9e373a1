"""DL3DV's labels: every spelling, tables with holes, and conditions."""

from __future__ import annotations

import pickle

import pytest

from toolroll.errors import ToolrollError, UsageError
from toolroll.splat.labels import Labels, check_where, fits, read_labels, read_where

A, B, C, D = (letter * 64 for letter in "abcd")
TABLE = f"""hash,batch,bound,reflection type,Transparency,light,secondary POI,primary POI,device
{A},1K,bd,abs reflection,somehow-nontransparent,nlight,School-Universities,Shopping Centers,phone
{B},2K,unbd,somehow-nonreflection,abs transparent,alight,Parks,Nature & Outdoors,
3K/{C.upper()},3K,nan,nan,nan,nan,nan,nan,nan

{D},4K,UNBD , Somehow Reflection,abs nontransparent,hlight
"""


def read(tmp_path, text, name="labels.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(tmp_path / name)


def test_a_table(tmp_path):
    found = read(tmp_path, TABLE)
    assert list(found) == [A, B, C, D]
    assert found[A].levels == {
        "environment": "indoor",
        "reflection": "more",
        "transparency": "less",
        "light": "natural",
    }
    assert found[A].texts == {
        "batch": "1K",
        "secondary_poi": "School-Universities",
        "primary_poi": "Shopping Centers",
        "device": "phone",
    }
    assert found[B].levels == {
        "environment": "outdoor",
        "reflection": "less",
        "transparency": "more",
        "light": "artificial",
    }
    assert (found[C].levels, found[C].texts) == ({}, {"batch": "3K"})
    assert found[D].levels == {
        "environment": "outdoor",
        "reflection": "medium",
        "transparency": "none",
        "light": "artificial",
    }
    assert found[D].texts == {"batch": "4K"}


def test_groups_of_the_benchmark(tmp_path):
    found = read(tmp_path, TABLE)
    assert found[A].groups() == {
        "environment": "indoor",
        "reflection": "more_ref",
        "transparency": "less_transp",
        "light": "natural",
    }
    assert found[B].groups()["reflection"] == "less_ref"
    assert found[D].groups()["reflection"] == "more_ref"
    merged = read(tmp_path, f"hash,a,b,c,d\n{A},more_ref,less-transp,high_freq,indoor\n")[A]
    assert merged.groups() == {
        "reflection": "more_ref",
        "transparency": "less_transp",
        "frequency": "high_freq",
        "environment": "indoor",
    }


def test_the_list_of_valid_scenes(tmp_path):
    text = f"hash,sensibility label,batch,duration\n{A},nan,1K,69.5\n{B},,problem,\n{C},x\n"
    found = read(tmp_path, text)
    assert found[A].texts == {"batch": "1K", "duration": "69.5"}
    assert found[B].texts == {"batch": "problem"}
    assert found[C].texts == {"sensibility_label": "x"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_other_forms_of_a_table(separator, tmp_path):
    text = f'\ufeff,Hash,batch\r\n0,{A},1K\r\n1,"{B}",2K\r\n\r\n'.replace(",", separator)
    found = read(tmp_path, text)
    assert {name: labels.texts["batch"] for name, labels in found.items()} == {A: "1K", B: "2K"}


def test_two_rows_of_a_scene_are_joined(tmp_path):
    found = read(tmp_path, f"hash,x,batch\n{A},bd,\n{A},,1K\n{A},unbd,2K\n")
    assert (found[A].levels, found[A].texts) == ({"environment": "indoor"}, {"batch": "1K"})


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        ([], [True, True, True, True]),
        (["environment=outdoor"], [False, True, False, True]),
        (["environment=unbd"], [False, True, False, True]),
        (["reflection=more_ref"], [True, False, False, True]),
        (["reflection=medium"], [False, False, False, True]),
        (["reflection=somehow-reflection"], [False, False, False, True]),
        (["reflection=more", "reflection=less"], [True, True, False, False]),
        (["environment=outdoor", "transparency=none"], [False, False, False, True]),
        (["batch=3K"], [False, False, True, False]),
        (["Primary POI=nature & outdoors"], [False, True, False, False]),
        (["colour=red"], [False, False, False, False]),
        (["reflection=outdoor"], [False, False, False, False]),
        (["environment=outdor"], [False, False, False, False]),
    ],
)
def test_conditions(conditions, wanted, tmp_path):
    found = read(tmp_path, TABLE)
    assert [fits(found[name], read_where(conditions)) for name in (A, B, C, D)] == wanted
    assert fits(None, read_where(conditions)) == (not conditions)


def test_conditions_that_are_none():
    for text in ("environment", "=x", "environment=", ""):
        with pytest.raises(UsageError, match="want KEY=VALUE"):
            read_where([text])


def test_a_value_that_is_no_level_is_a_text(tmp_path):
    found = read(tmp_path, f"hash,reflection,environment\n{A},none,indoor\n{B},odd,bd\n{C},Yes,in a hall\n")
    assert [labels.levels for labels in found.values()] == [
        {"reflection": "none", "environment": "indoor"},
        {"environment": "indoor"},
        {},
    ]
    assert found[B].texts == {"reflection": "odd"}
    assert found[A].groups() == {"reflection": "less_ref", "environment": "indoor"}
    assert found[C].groups() == Labels({}, {}).groups() == {}
    assert [fits(labels, read_where(["reflection=odd"])) for labels in found.values()] == [False, True, False]


@pytest.mark.parametrize("head", ["hash,,", "hash,label,label", "hash,label,LABEL"])
def test_columns_of_one_name(head, tmp_path):
    found = read(tmp_path, f"{head}\n{A},bd,abs reflection\n{B},unbd,nan\n")
    assert found[A].levels == {"environment": "indoor", "reflection": "more"}
    assert found[B].levels == {"environment": "outdoor"}


def test_levels_in_columns_of_their_names(tmp_path):
    text = f"hash,frequency,transparency,light\r\n{A},High,medium,mixed\r\n{B},low-freq,more_transp,none\r\n"
    found = read(tmp_path, text)
    assert found[A].levels == {"frequency": "high_freq", "transparency": "medium", "light": "mixed"}
    assert found[B].levels == {"frequency": "low_freq", "transparency": "more_transp"}


def test_quoted_fields_have_separators_and_line_ends(tmp_path):
    found = read(tmp_path, f'hash,note,x\r\n{A},"a, ""b""\r\nc",bd\r\n')
    assert found[A].texts["note"] == 'a, "b"\r\nc'
    assert found[A].levels == {"environment": "indoor"}


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("surroundings=outdoor", "there are environment, frequency, reflection, transparency, light, batch, device, "),
        ("environment=outdor", "is none of indoor, outdoor"),
        ("reflection=bd", "is none of more, medium, less, none, more_ref, less_ref"),
        ("duration=5", "there are environment"),
    ],
)
def test_conditions_that_nothing_can_fulfil(condition, why, tmp_path):
    table = read(tmp_path, TABLE)
    with pytest.raises(UsageError, match=why) as error:
        check_where(read_where([condition]), table)
    assert error.value.place == f"--where {condition}"
    check_where(read_where(["environment=unbd", "batch=9K", "frequency=high", "reflection=abs nonreflection"]), table)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no column named hash or"),
        (b"batch,x\n1,2\n", "no column named hash or"),
        (pickle.dumps({"hash": []}), "not a text file"),
        (b"hash\0\n", "not a text file"),
        (b'hash,x\na,"' + b"x" * 200_000 + b'"\n', "not a table: field larger"),
        (b'hash,x\n"a,bd\nb,unbd\n', "not a table: unexpected end of data"),
        (b'hash,x\n"a"1,bd\n', "not a table: "),
    ],
)
def test_tables_that_are_not_sound(data, why, tmp_path):
    with pytest.raises(ToolrollError) as error:
        read(tmp_path, data)
    assert why in str(error.value)
    with pytest.raises(ToolrollError, match="No such file"):
        read_labels(tmp_path / "gone")
