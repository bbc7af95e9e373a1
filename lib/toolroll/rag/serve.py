"""A retrieval server over any retriever, for trainers that already speak one of two protocols.

Search-R1's (also verl's, HiPRAG's): `POST /retrieve {"queries": [...], "topk": 3 or null, "return_scores": bool}`
-> `{"result": [[{"document": {"id", "contents"}, "score"}, ...], ...]}`, bare documents without scores.
FlashRAG's (ReSearch): `POST /search {"query": "..."}` and `/batch_search {"query": [...]}`, with "top_n" and
"return_score" -> documents, or [documents, scores]. `GET /health` tells who answers. Unknown fields are ignored and
errors are `{"detail": "..."}`, both as FastAPI does.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson

from toolroll.errors import ToolrollError
from toolroll.rag.corpus import Hit, contents
from toolroll.rag.retrieve import Retriever

_GRACE_S = 5.0  # how long close() waits for answers under way
_IDLE_S = 60.0  # a connection that says nothing for so long is closed
_DRAIN_BYTES = 64 << 20  # of a body that is too large, read so that the client reads our answer before the line closes


class BadRequest(Exception):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Server:
    """A running server. `port` is where it listens, `url` how to reach it; `close` ends it."""

    def __init__(self, http: "_Http") -> None:
        self._http = http
        self.host, self.port = str(http.server_address[0]), int(http.server_address[1])
        self.url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        self._thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, name="rag-serve")
        self._thread.start()

    @property
    def answered(self) -> int:
        """How many queries have been answered."""
        return self._http.answered

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until the server ends or the time is over."""
        self._thread.join(timeout_s)

    def close(self) -> None:
        """Take no more requests, let those under way finish (up to 5 s), hang up; again: nothing."""
        self._http.shutdown()
        self._http.hang_up(_GRACE_S)
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    retriever: Retriever,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    topk: int = 3,
    max_topk: int = 1000,
    max_body_bytes: int = 8 << 20,
    on_error: Callable[[str], object] = lambda _: None,
) -> Server:
    """Start answering searches of `retriever` on `host`:`port` (0: any free one) in threads of their own.

    `topk` counts when a request does not say; one above `max_topk` and a body above `max_body_bytes` are refused.
    `on_error` gets a line for each search that failed. ToolrollError when the address cannot be had. The retriever
    must allow several threads, as all of ours do, and stays open when the server is closed.
    """
    answers = Answers(retriever, topk=topk, max_topk=max_topk)
    try:
        return Server(_Http((host, port), answers, max_body_bytes, on_error))
    except (OSError, OverflowError) as error:
        raise ToolrollError(getattr(error, "strerror", None) or str(error), place=f"{host}:{port}") from error


class Answers:
    """What the server says, without the HTTP: a path and a decoded body in, (JSON value, queries answered) out."""

    def __init__(self, retriever: Retriever, *, topk: int, max_topk: int) -> None:
        self._retriever, self._topk, self._max_topk = retriever, topk, max_topk
        self.posts: dict[str, Callable[[Mapping[str, Any]], tuple[Any, int]]] = {
            "/retrieve": self._retrieve,
            "/search": self._search,
            "/batch_search": self._batch_search,
        }

    def health(self) -> dict[str, str]:
        """The answer to GET /health."""
        return {"status": "healthy", "retriever": self._retriever.name}

    def _retrieve(self, body: Mapping[str, Any]) -> tuple[Any, int]:
        queries = _strings(body, "queries")
        hits = self._retriever.search(queries, self._count(body, "topk"))
        if _flag(body, "return_scores"):
            result = [[{"document": _document(hit), "score": hit["score"]} for hit in found] for found in hits]
            return {"result": result}, len(queries)
        return {"result": [[_document(hit) for hit in found] for found in hits]}, len(queries)

    def _search(self, body: Mapping[str, Any]) -> tuple[Any, int]:
        query = body.get("query")
        if not isinstance(query, str):
            raise BadRequest(HTTPStatus.BAD_REQUEST, '"query" must be a string')
        (found,) = self._retriever.search([query], self._count(body, "top_n"))
        documents = [_document(hit) for hit in found]
        return ([documents, [hit["score"] for hit in found]] if _flag(body, "return_score") else documents), 1

    def _batch_search(self, body: Mapping[str, Any]) -> tuple[Any, int]:
        queries = _strings(body, "query")
        hits = self._retriever.search(queries, self._count(body, "top_n"))
        documents = [[_document(hit) for hit in found] for found in hits]
        if not _flag(body, "return_score"):
            return documents, len(queries)
        return [documents, [[hit["score"] for hit in found] for found in hits]], len(queries)

    def _count(self, body: Mapping[str, Any], field: str) -> int:
        value = body.get(field)
        if value is None:
            return self._topk
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= self._max_topk:
            raise BadRequest(HTTPStatus.BAD_REQUEST, f'"{field}" must be a whole number from 1 to {self._max_topk}')
        return value


def _document(hit: Hit) -> dict[str, str]:
    return {"id": hit["id"], "contents": contents(hit)}


def _strings(body: Mapping[str, Any], field: str) -> list[str]:
    value = body.get(field)
    if not isinstance(value, list) or not all(isinstance(query, str) for query in value):
        raise BadRequest(HTTPStatus.BAD_REQUEST, f'"{field}" must be a list of strings')
    return value


def _flag(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(HTTPStatus.BAD_REQUEST, f'"{field}" must be true or false')
    return bool(value)


class _Http(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], answers: Answers, max_body_bytes: int, on_error: Callable[[str], object]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answers, self.max_body_bytes, self.on_error = answers, max_body_bytes, on_error
        self.answered = 0
        self.closing = False
        self.lock = threading.Condition()
        self._busy = 0
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a client that hangs up is its own affair
            self.on_error(f"{type(error).__name__}: {error}")

    def begin(self) -> None:
        with self.lock:
            self._busy += 1

    def end(self, answered: int) -> None:
        with self.lock:
            self._busy -= 1
            self.answered += answered
            self.lock.notify_all()

    def hang_up(self, grace_s: float) -> None:
        """Wait until no answer is under way, then close the connections that are kept alive."""
        until = time.monotonic() + grace_s
        with self.lock:
            self.closing = True
            while self._busy and (left := until - time.monotonic()) > 0:
                self.lock.wait(left)
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "toolroll"
    sys_version = ""
    timeout = _IDLE_S
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together
    server: _Http

    def do_GET(self) -> None:
        """Answer /health."""
        path = self.path.partition("?")[0]
        if path == "/health":
            self._send(HTTPStatus.OK, self.server.answers.health())
        else:
            self._refuse(path, known=path in self.server.answers.posts)

    def do_POST(self) -> None:
        """Answer a search."""
        self.server.begin()
        answered = 0
        try:
            path = self.path.partition("?")[0]
            body = self._body()
            answer = self.server.answers.posts.get(path)
            if answer is None:
                self._refuse(path, known=path == "/health")
            else:
                value, answered = answer(_decoded(body))
                self._send(HTTPStatus.OK, value)
        except BadRequest as error:
            self._send(error.status, {"detail": str(error)})
        except ToolrollError as error:
            self.server.on_error(str(error))
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"detail": str(error)})
        finally:
            self.server.end(answered)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the base class finds wrong (a bad request line, an unknown method), as JSON."""
        self.close_connection = True
        self._send(HTTPStatus(code), {"detail": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet: the command counts, and tells what fails."""

    def _refuse(self, path: str, *, known: bool) -> None:
        status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
        self._send(status, {"detail": f"{status.phrase}: {path}"})

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "a body needs a Content-Length")
        if int(length) > self.server.max_body_bytes:
            self.close_connection = True
            left = min(int(length), _DRAIN_BYTES)
            while left > 0 and (chunk := self.rfile.read(min(left, 1 << 16))):
                left -= len(chunk)
            detail = f"the body has {length} bytes, at most {self.server.max_body_bytes} are taken"
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, value: object) -> None:
        body = orjson.dumps(value)
        self.close_connection = self.close_connection or self.server.closing
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()  # before it counts as answered: a server that closes hangs up then


def _decoded(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(HTTPStatus.BAD_REQUEST, f"the body is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return value
