"""The HTTP client against real local servers that answer, fail, hang, babble and hang up."""

import json
import socket
import threading
import time
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toolroll.errors import RowError, UsageError
from toolroll.io.retry import retry
from toolroll.rag.remote import HttpRetriever
from toolroll.rag.retrieve import open_retriever

pytestmark = pytest.mark.network

GOOD = {"result": [[{"document": {"id": "0", "contents": '"T"\nx'}, "score": 0.5}]]}
HIT = {"id": "0", "title": '"T"', "text": "x", "score": 0.5}


class FaultServer:
    """Answers the n-th request as the n-th of `script` says, the last one for good; keeps what it was asked.

    An answer is a JSON value, bytes, an int (a status), or a function of the request handler.
    """

    def __init__(self, script):
        self.script = script
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, body))
                answer = outer.script[min(len(outer.requests), len(outer.script)) - 1]
                if callable(answer):
                    self.close_connection = True
                    answer(self)
                elif isinstance(answer, int):
                    self.reply(answer, b"Internal <b>error</b>")
                else:
                    self.reply(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            def reply(self, status, data, **headers):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args):
                pass

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def scripted(monkeypatch):
    """Make a server with a script and a retriever on it; waits between tries are not slept."""
    waits = []
    monkeypatch.setattr("toolroll.rag.remote.retry", partial(retry, sleep=waits.append))
    opened = []

    def make(*script, path="", **options):
        server = FaultServer(script)
        opened.append(server)
        retriever = HttpRetriever(server.url + path, **{"timeout_s": 5.0, "tries": 3, "seed": 1, **options})
        opened.append(retriever)
        return server, retriever

    make.waits = waits
    yield make
    for thing in reversed(opened):
        thing.close()


def hang(handler):
    time.sleep(1.5)


def drop(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def truncate(handler):
    data = json.dumps(GOOD).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:20])


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def busy(handler):
    handler.reply(503, b"", Retry_After="7")


def error_of(retriever, queries=("q",)) -> str:
    with pytest.raises(RowError) as caught:
        retriever.search(list(queries), 3)
    assert caught.value.place == retriever.url
    message = str(caught.value)
    assert message.startswith(f"{retriever.url}: ")
    assert "\n" not in message
    assert len(message) < 250
    return message


def test_what_is_sent_and_what_comes_back(scripted):
    server, retriever = scripted({"result": [GOOD["result"][0], []]})
    assert retriever.search(["paris", "nothing"], 3) == [[HIT], []]
    body = {"queries": ["paris", "nothing"], "topk": 3, "return_scores": True}
    assert server.requests == [("/retrieve", body)]
    assert retriever.search([], 3) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("path", ["", "/", "/retrieve", "/v2/find"])
@pytest.mark.parametrize("prefix", ["", "http:"])
def test_urls_with_and_without_the_path(scripted, path, prefix):
    server, _ = scripted(GOOD)
    with closing(open_retriever(f"{prefix}{server.url}{path}")) as retriever:
        assert retriever.search(["q"], 1) == [[HIT]]
    assert server.requests[0][0] == (path if len(path) > 1 else "/retrieve")


def test_blank_queries_are_not_sent(scripted):
    server, retriever = scripted(GOOD)
    assert retriever.search(["", "q", " \n"], 3) == [[], [HIT], []]
    assert server.requests[0][1]["queries"] == ["q"]
    assert retriever.search([""], 3) == [[]]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("hit", "expected"),
    [
        (
            {"document": {"id": 5, "title": "T", "text": "x"}, "score": 2},
            {**HIT, "id": "5", "title": "T", "score": 2.0},
        ),
        ({"document": {"id": "0", "contents": '"T"\nx'}}, {**HIT, "score": None}),
        ({"id": "0", "contents": '"T"\nx'}, {**HIT, "score": None}),
        ({"id": "0", "contents": '"T"\nx', "score": 0.5}, HIT),
    ],
)
def test_documents_in_all_their_forms(scripted, hit, expected):
    _, retriever = scripted({"result": [[hit]]})
    assert retriever.search(["q"], 3) == [[expected]]


def test_documents_without_id_and_more_than_asked(scripted):
    _, retriever = scripted({"result": [['"A"\nx', {"contents": '"B"\ny'}, '"C"\nz']]})
    hits = retriever.search(["q"], 2)[0]
    assert [(hit["title"], hit["text"]) for hit in hits] == [('"A"', "x"), ('"B"', "y")]
    assert hits[0]["id"] != hits[1]["id"]


DOCUMENT = {"id": "0", "contents": '"T"\nx'}


@pytest.mark.parametrize(
    ("path", "reply", "found"),
    [
        ("", [[[DOCUMENT], []], [[0.5], []]], [[HIT], []]),
        ("", [[DOCUMENT], []], [[{**HIT, "score": None}], []]),
        ("/batch_search", [[], []], [[], []]),
        ("/search", [[DOCUMENT], [0.5]], [[HIT], [HIT]]),
        ("/search", [DOCUMENT], [[{**HIT, "score": None}]] * 2),
        ("/search", [DOCUMENT, DOCUMENT], [[{**HIT, "score": None}] * 2] * 2),
        ("/search", [[], []], [[], []]),
    ],
)
def test_flashrag_replies(scripted, path, reply, found):
    server, retriever = scripted(reply, path=path, dialect="flashrag")
    assert retriever.search(["a", "b"], 4) == found
    sent = {"top_n": 4, "return_score": True}
    if path == "/search":
        assert server.requests == [("/search", {"query": "a", **sent}), ("/search", {"query": "b", **sent})]
    else:
        assert server.requests == [("/batch_search", {"query": ["a", "b"], **sent})]


def test_flashrag_scores_that_do_not_fit(scripted):
    for reply in ([[[DOCUMENT]], [[0.5, 0.4]]], [[[DOCUMENT]], [0.5]], [[[DOCUMENT]], "scores"]):
        _, retriever = scripted(reply, dialect="flashrag")
        assert "do not match" in error_of(retriever)


@pytest.mark.parametrize("fault", [500, 502, 503, 504, 429, drop, truncate])
def test_a_passing_failure_is_tried_again(scripted, fault):
    server, retriever = scripted(fault, fault, GOOD)
    assert retriever.search(["q"], 3) == [[HIT]]
    assert len(server.requests) == 3
    assert len(scripted.waits) == 2


def test_the_wait_a_server_asks_for(scripted):
    _, retriever = scripted(busy, GOOD)
    assert retriever.search(["q"], 3) == [[HIT]]
    assert scripted.waits == [7.0]


@pytest.mark.parametrize(
    ("fault", "why"), [(500, "500 Internal Server Error"), (drop, "no answer ("), (truncate, "no answer (")]
)
def test_a_lasting_failure_is_one_line(scripted, fault, why):
    server, retriever = scripted(fault)
    assert why in error_of(retriever)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_is_not_tried_again(scripted, status):
    server, retriever = scripted(status)
    assert f"the server answered {status}" in error_of(retriever)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [hang, drip])
def test_an_answer_that_takes_too_long(scripted, fault):
    server, retriever = scripted(fault, GOOD, timeout_s=0.3)
    assert retriever.search(["q"], 3) == [[HIT]]
    server.requests.clear()
    server.script = [fault]
    started = time.monotonic()
    assert "no answer within 0.3 s" in error_of(retriever)
    assert time.monotonic() - started < 3
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<html><body>\n502 Bad\nGateway " + b"x" * 999 + b"</body></html>", "not JSON: '<html>"),
        (b"\xff\xfe\x00garbage", "not JSON"),
        (b'{"result": [[{"document"', "not JSON"),
        (b"", "not JSON"),
        ({"result": []}, "0 lists of hits for 1 queries"),
        ({"result": [[], []]}, "2 lists of hits for 1 queries"),
        ({"results": [[]]}, "not a list of hits"),
        ({"result": [None]}, "not a list of hits"),
        ("ok", "not a list of hits"),
        (None, "not a list of hits"),
        ({"result": [[{"document": {"id": "0"}}]]}, "no passage"),
        ({"result": [[7]]}, "no passage"),
    ],
)
def test_an_answer_that_is_none(scripted, answer, why):
    server, retriever = scripted(answer)
    assert why in error_of(retriever)
    assert len(server.requests) == 1


def test_an_answer_that_is_too_long(scripted):
    _, retriever = scripted(json.dumps(GOOD).encode() + b" " * 5000, max_bytes=2000)
    assert "longer than 2000 bytes" in error_of(retriever)


def test_nobody_there(scripted):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with closing(HttpRetriever(f"http://127.0.0.1:{port}", tries=2, timeout_s=2)) as retriever:
            assert "no answer (" in error_of(retriever)
    assert len(scripted.waits) == 1


def test_urls_that_are_none():
    for url in ("host:8000", "ftp://host", "http://", "http://host:port", "/retrieve"):
        with pytest.raises(UsageError):
            HttpRetriever(url)
