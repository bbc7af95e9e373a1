"""A retrieval server that answers one request at a time and as slowly as a test wants."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

HIT = {"document": {"id": "7", "contents": '"Paris"\nParis is the capital.'}, "score": 1.5}


class Retriever:
    """Serves Search-R1's protocol while its `with` block runs. A query takes `pause_s`, which may be changed."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        self.asked = 0
        turn = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                with turn:
                    time.sleep(self.pause_s * len(body["queries"]))
                    self.asked += 1
                answer = json.dumps({"result": [[HIT] for _ in body["queries"]]}).encode()
                try:
                    handler.send_response(200)
                    handler.send_header("Content-Length", str(len(answer)))
                    handler.end_headers()
                    handler.wfile.write(answer)
                except OSError:
                    pass  # whoever asked was killed

            def log_message(handler, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def spec(self) -> str:
        """What `--retriever` takes."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/retrieve"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause_s = 0.0
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
