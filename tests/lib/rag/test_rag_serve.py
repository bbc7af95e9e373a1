"""The server: both protocols, what it refuses, and how it ends."""

import http.client
import json
import socket
import threading
import time
from contextlib import closing

import pytest

from toolroll.errors import RowError, ToolrollError
from toolroll.rag.corpus import Hit
from toolroll.rag.remote import HttpRetriever
from toolroll.rag.serve import serve

pytestmark = pytest.mark.network


class Numbers:
    """Finds `topk` passages named after the query; "none" finds none, "fail" fails, "bug" has a bug, "slow" is slow."""

    name = identity = "numbers"

    def __init__(self):
        self.slow = threading.Event()  # a slow search has begun

    def search(self, queries, topk):
        if "fail" in queries:
            raise RowError("no such luck", place="numbers")
        if "bug" in queries:
            raise ZeroDivisionError
        if "slow" in queries:
            self.slow.set()
            time.sleep(0.4)
        return [[] if query == "none" else [self.hit(query, i) for i in range(topk)] for query in queries]

    def hit(self, query, i):
        return Hit(id=f"{query}{i}", title=query, text=f"t{i}", score=1 / (i + 1))

    def close(self):
        pass


@pytest.fixture
def errors():
    return []


@pytest.fixture
def server(errors):
    with serve(Numbers(), topk=2, max_topk=9, max_body_bytes=1000, on_error=errors.append) as running:
        yield running


def ask(server, path, body=None, method="POST", raw=None):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection:
        data = raw if raw is not None else None if body is None else json.dumps(body)
        connection.request(method, path, data)
        answer = connection.getresponse()
        text = answer.read()
        assert int(answer.headers["Content-Length"]) == len(text)
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(text)


def document(query, i):
    return {"id": f"{query}{i}", "contents": f'"{query}"\nt{i}'}


def test_search_r1_with_scores(server):
    status, answer = ask(server, "/retrieve", {"queries": ["a", "none"], "topk": 1, "return_scores": True, "extra": 1})
    assert (status, answer) == (200, {"result": [[{"document": document("a", 0), "score": 1.0}], []]})


@pytest.mark.parametrize("queries", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_search_r1_without_scores(server, queries):
    for flag in ({"return_scores": False}, {}):
        status, answer = ask(server, "/retrieve", {"queries": queries, **flag})
        assert status == 200
        assert answer == {"result": [[document(query, 0), document(query, 1)] for query in queries]}


def test_topk_null_means_the_default(server):
    for body in ({"topk": None}, {}):
        assert len(ask(server, "/retrieve", {"queries": ["a"], **body})[1]["result"][0]) == 2
    assert ask(server, "/retrieve", {"queries": []}) == (200, {"result": []})


def test_flashrag(server):
    documents = [document("a", 0), document("a", 1)]
    assert ask(server, "/search", {"query": "a"}) == (200, documents)
    assert ask(server, "/search", {"query": "a", "top_n": 1, "return_score": True}) == (200, [documents[:1], [1.0]])
    assert ask(server, "/batch_search", {"query": ["a", "none"]}) == (200, [documents, []])
    scored = ask(server, "/batch_search", {"query": ["a"], "top_n": 2, "return_score": True})
    assert scored == (200, [[documents], [[1.0, 0.5]]])


def test_health(server):
    assert ask(server, "/health", method="GET") == (200, {"status": "healthy", "retriever": "numbers"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"queries": "a"}, 400),
        ({"queries": [1]}, 400),
        ({"queries": ["a"], "topk": 0}, 400),
        ({"queries": ["a"], "topk": 10}, 400),
        ({"queries": ["a"], "topk": True}, 400),
        ({"queries": ["a"], "topk": "3"}, 400),
        ({"queries": ["a"], "return_scores": "yes"}, 400),
        (["a"], 400),
        ({"queries": ["a" * 2000]}, 413),
        ({"queries": ["fail"]}, 500),
    ],
)
def test_refusals_are_json_with_a_detail(server, body, status):
    got, answer = ask(server, "/retrieve", body)
    assert got == status
    assert list(answer) == ["detail"]
    assert "\n" not in answer["detail"]


def test_paths_and_methods(server):
    assert ask(server, "/nowhere", {})[0] == 404
    assert ask(server, "/nowhere", method="GET")[0] == 404
    assert ask(server, "/retrieve", method="GET")[0] == 405
    assert ask(server, "/health", {})[0] == 405
    assert ask(server, "/retrieve", {}, method="PUT")[0] == 501
    assert ask(server, "/retrieve", raw=b'{"queries": ["a"')[0] == 400


def test_a_body_without_length_and_a_line_that_is_no_request(server):
    for sent, status in (
        (b"POST /retrieve HTTP/1.1\r\nHost: x\r\n\r\n", b"411"),
        (b"POST /retrieve now HTTP/1.1\r\n\r\n", b"400"),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as line:
            line.sendall(sent)
            answer = b""
            while chunk := line.recv(4096):
                answer += chunk
        assert status in answer.splitlines()[0]
        assert b'{"detail":' in answer


def test_failures_are_told_and_the_server_goes_on(server, errors):
    assert ask(server, "/retrieve", {"queries": ["fail"]})[1] == {"detail": "numbers: no such luck"}
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server, "/retrieve", {"queries": ["bug"]})
    assert ask(server, "/retrieve", {"queries": ["a"]})[0] == 200
    assert errors == ["numbers: no such luck", "ZeroDivisionError: "]


def test_one_connection_serves_many_requests(server):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection:
        for path in ("/retrieve", "/nowhere", "/retrieve"):
            connection.request("POST", path, json.dumps({"queries": ["a", "b"]}))
            connection.getresponse().read()
            line = connection.sock
            assert line is not None
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        assert connection.sock is line
    assert server.answered == 4


def test_threads_ask_at_once(server):
    started = time.monotonic()
    results: list[int] = []
    askers = [
        threading.Thread(target=lambda: results.append(ask(server, "/retrieve", {"queries": ["slow"]})[0]))
        for _ in range(5)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert results == [200] * 5
    assert time.monotonic() - started < 5 * 0.4


def test_close_lets_an_answer_finish_and_hangs_up_on_the_idle():
    numbers = Numbers()
    running = serve(numbers)
    idle = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    idle.request("GET", "/health")
    idle.getresponse().read()
    answers = []
    asker = threading.Thread(target=lambda: answers.append(ask(running, "/retrieve", {"queries": ["slow"]})))
    asker.start()
    assert numbers.slow.wait(10)
    started = time.monotonic()
    running.close()
    assert time.monotonic() - started < 3
    asker.join()
    assert answers[0][0] == 200
    idle.close()
    running.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1).close()


def test_a_taken_port_is_one_line(server):
    with pytest.raises(ToolrollError, match=f"^127.0.0.1:{server.port}: "):
        serve(Numbers(), port=server.port)
    with pytest.raises(ToolrollError, match="70000"):
        serve(Numbers(), port=70000)


@pytest.mark.parametrize(("dialect", "path"), [("search-r1", ""), ("flashrag", ""), ("flashrag", "/search")])
def test_our_client_understands_our_server(server, dialect, path):
    with closing(HttpRetriever(server.url + path, dialect=dialect)) as client:
        found = client.search(["a", "none", " ", "b"], 2)
    assert [[hit["id"] for hit in hits] for hits in found] == [["a0", "a1"], [], [], ["b0", "b1"]]
    assert found[0][1] == {"id": "a1", "title": '"a"', "text": "t1", "score": 0.5}
