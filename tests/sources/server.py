"""An HTTP server on the loopback interface that misbehaves as it is told to."""

import random
import re
import socket
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = "good"
PIECE = 8192


class Server:
    """Serves files from memory, with ranges, and answers each request in a seeded mood.

    Attributes
    ----------
    files: path -> content. moods: what to choose from, often `GOOD`. requests: (path, first
    byte, last byte + 1, mood) of each. sent: bytes of bodies that were sent. watch: called with
    `sent` after each piece. etag: told with each answer.
    """

    def __init__(self, moods: Iterable[str] = (GOOD,), seed: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.moods = list(moods)
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, int, int, str]] = []
        self.sent = 0
        self.etag: str | None = None
        self.stall = 1.0
        self.retry_after = "0"
        self.proxied: list[str] = []
        self.watch: Callable[[int], None] = lambda sent: None
        outer = self

        class Handler(_Handler):
            server_of_test = outer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "Server":
        self.thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def mood(self) -> str:
        with self.lock:
            return self.rng.choice(self.moods)

    def count(self, sent: int) -> None:
        with self.lock:
            self.sent += sent
            total = self.sent
        self.watch(total)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_test: Server

    def log_message(self, *arguments) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client was killed
            self.close_connection = True

    def do_GET(self) -> None:
        test = self.server_of_test
        path = self.path
        if path.startswith("http://"):
            test.proxied.append(path)
            path = "/" + path.split("/", 3)[3]
        name = path.lstrip("/").removeprefix("moved/")
        mood = test.mood()
        content = test.files.get(name)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(match[1]) if match else 0
        end = int(match[2]) + 1 if match and match[2] else len(content or b"")
        end = min(end, len(content or b""))
        with test.lock:
            test.requests.append((name, begin, end, mood))
        if content is None:
            self._empty(404)
        elif mood in ("429", "503"):
            self._empty(int(mood), ("Retry-After", test.retry_after))
        elif mood == "redirect" and not path.startswith("/moved/"):
            self._empty(302, ("Location", f"{test.address}/moved/{name}"))
        else:
            self._send(content, mood, match is not None, begin, end)

    def _empty(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", "0")):
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: bytes, mood: str, ranged: bool, begin: int, end: int) -> None:
        test, size = self.server_of_test, len(content)
        if mood == "ignore range":
            ranged, begin, end = False, 0, size
        told_begin, told_size = begin, size
        if mood == "other range":
            told_begin = begin + 1
        if mood == "wrong size":
            told_size = size + 1000
        body = content[begin:end]
        if mood == "wrong bytes":
            body = bytes(255 - byte for byte in body)
        length = len(body)
        if mood == "wrong length":
            length += 100
        elif mood == "too much":
            body += b"more than was asked for" * 100
            length = len(body)
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {told_begin}-{end - 1}/{told_size}")
        if test.etag:
            self.send_header("ETag", test.etag)
        unknown = mood == "no length" and not ranged
        self.send_header(*(("Connection", "close") if unknown else ("Content-Length", str(length))))
        self.end_headers()
        stop = len(body)
        if mood in ("drop", "stall"):
            with test.lock:
                stop = test.rng.randrange(len(body) + 1)
        for place in range(0, stop, PIECE):
            piece = body[place : min(place + PIECE, stop)]
            self.wfile.write(piece)
            test.count(len(piece))
        if mood == "stall":
            threading.Event().wait(test.stall)
        if stop < length or unknown:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
