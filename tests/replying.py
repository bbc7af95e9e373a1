"""A server on the loopback address that answers chats as OpenAI's do, for tests of what a command does meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The models there are."""
        self._reply({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        """An answer."""
        self.rfile.read(int(self.headers["content-length"]))
        with self.server.in_turn:
            text = self.server.answer()
        self._reply({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})

    def _reply(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def replying(answer: Callable[[], str]) -> Iterator[str]:
    """The URL of a server that answers with `answer()`, which is called for one request after the other."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.in_turn, server.answer = threading.Lock(), answer  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()
