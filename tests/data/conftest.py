"""A server on the loopback, so that downloads are tested without a network."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Server:
    """What is served: name to (content, the length that is announced)."""

    url: str
    contents: dict[str, tuple[bytes, int]]

    def serve(self, name: str, content: bytes, *, announced: int | None = None) -> None:
        self.contents[name] = (content, len(content) if announced is None else announced)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, contents, *args, **kwargs):
        self.contents = contents
        super().__init__(*args, **kwargs)

    def do_GET(self):
        name = self.path.lstrip("/")
        if name not in self.contents:
            self.send_error(404)
            return
        content, announced = self.contents[name]
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):  # noqa: A002
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    contents: dict[str, tuple[bytes, int]] = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, contents)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(url=f"http://127.0.0.1:{running.server_port}", contents=contents)
        running.shutdown()
        thread.join()
