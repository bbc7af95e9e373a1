"""The cache: values come back, other files are refused, threads and processes share it."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolroll.errors import ToolrollError
from toolroll.io.cache import Cache, cache_key


def key(request: object) -> bytes:
    return cache_key("search", "model", {"topk": 3}, request)


VALUES = [0, 1.5, "", "é\u2028", [], {"a": [1, {"b": None}]}, True, 2**63]


@pytest.mark.parametrize("where", ["file", "memory"])
def test_values_come_back(tmp_path, where):
    with Cache(tmp_path / "new" / "cache.db" if where == "file" else None) as cache:
        for number, value in enumerate(VALUES):
            cache.put(key(number), value)
        assert [cache.get(key(number)) for number in range(len(VALUES))] == VALUES
        assert cache.get(key("other")) is None
        assert len(cache) == len(VALUES)


def test_values_outlive_the_process_and_the_last_put_counts(tmp_path):
    with Cache(tmp_path / "c") as cache:
        cache.put(key(1), "old")
        cache.put(key(1), "new")
    with Cache(str(tmp_path / "c")) as cache:
        assert cache.get(key(1)) == "new"


def test_many_at_once(tmp_path):
    with Cache(tmp_path / "c") as cache:
        cache.put_many({key(number): number for number in range(1200)})
        found = cache.get_many([key(number) for number in (5, 1199, 5000, 5)])
        assert found == {key(5): 5, key(1199): 1199}
        assert len(cache.get_many(key(number) for number in range(1200))) == 1200
        assert cache.get_many([]) == {}
        cache.put_many({})


def test_put_many_is_all_or_nothing(tmp_path):
    with Cache(tmp_path / "c") as cache:
        with pytest.raises(TypeError):
            cache.put_many({key(1): 1, key(2): object()})
        assert len(cache) == 0


def test_none_is_refused(tmp_path):
    with Cache(tmp_path / "c") as cache, pytest.raises(ValueError, match="None"):
        cache.put(key(1), None)


def test_every_part_of_the_key_counts_and_dict_order_does_not():
    base = ("search", "model", {"a": 1, "b": 2}, ["q"])
    others = [
        ("judge", *base[1:]),
        ("search", "m2", *base[2:]),
        (*base[:2], {"a": 1, "b": 3}, ["q"]),
        (*base[:3], ["r"]),
    ]
    keys = {cache_key(*parts) for parts in (base, *others)}
    assert len(keys) == 5
    assert cache_key("search", "model", {"b": 2, "a": 1}, ["q"]) == cache_key(*base)
    assert len(cache_key(*base)) == 32


def refused(path) -> str:
    with pytest.raises(ToolrollError) as caught, Cache(path):
        pass
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, please do not overwrite them\n" * 40)
    before = path.read_bytes()
    assert "not a database" in refused(path)
    assert path.read_bytes() == before


def test_the_database_of_something_else(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (x)")
    db.close()
    before = path.read_bytes()
    assert "something else" in refused(path)
    assert path.read_bytes() == before


def test_another_version(tmp_path):
    path = tmp_path / "c"
    Cache(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "version 99" in refused(path)


def test_a_folder_and_a_place_that_cannot_be(tmp_path):
    refused(tmp_path)
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "c")


def test_damage_is_told_with_the_path(tmp_path):
    path = tmp_path / "c"
    with Cache(path) as cache:
        cache.put_many({key(number): "x" * 500 for number in range(200)})
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(ToolrollError) as caught, Cache(path) as cache:
        cache.get(key(1))
    assert str(path) in str(caught.value)


def test_a_damaged_value(tmp_path):
    path = tmp_path / "c"
    with Cache(path) as cache:
        cache.put(key(1), {"a": 1})
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET value = ?", (b'{"a": ',))
    db.close()
    with Cache(path) as cache, pytest.raises(ToolrollError, match="damaged value"):
        cache.get(key(1))


def test_a_closed_cache_says_so(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.close()
    cache.close()
    with pytest.raises(ToolrollError, match="closed"):
        cache.get(key(1))


def test_threads_share_one_cache(tmp_path):
    with Cache(tmp_path / "c") as cache, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: cache.put(key(number), number), range(200)))
        assert list(pool.map(lambda number: cache.get(key(number)), range(200))) == list(range(200))


WRITER = """
import sys
from toolroll.io.cache import Cache, cache_key
path, who = sys.argv[1], int(sys.argv[2])
with Cache(path) as cache:
    for number in range(50):
        cache.put(cache_key("k", "m", who, number), [who, number])
"""


def test_processes_share_one_file(tmp_path):
    path = tmp_path / "c"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who)]) for who in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    with Cache(path) as cache:
        assert len(cache) == 200
        assert cache.get(cache_key("k", "m", 3, 49)) == [3, 49]


def test_waits_for_another_writer(tmp_path):
    path = tmp_path / "c"
    Cache(path).close()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    release.start()
    with Cache(path) as cache:
        cache.put(key(1), "patient")
        assert cache.get(key(1)) == "patient"
    release.join()
    other.close()
