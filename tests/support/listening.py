"""A small HTTP/1.1 server on a loopback address that keeps its requests.

It is the base of the test servers.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn, ThreadingTCPServer
from typing import Any

BLOCK = 1 << 16
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIPS = {
    "status": b"HT",
    "headers": OK + b"X-Long: ",
    "body": OK + b"Content-Length: 100000\r\n\r\n{",
    "chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n",
}
"""Beginnings of an answer that a server may continue one byte at a time."""
HANDSHAKE = b"\x16\x03\x03\x40\x00"  # The head of a record of 16 KiB (RFC 8446, 5.1).
Headers = list[tuple[str, str]]


@dataclass
class Request:
    """A request that a server has seen.

    `path` has the query, and `length` is the number of bytes of its body so far.
    """

    method: str
    path: str
    headers: Message
    length: int = 0


@dataclass
class Answer:
    """An answer; without a `Content-Length` its body is sent in chunks."""

    status: int
    headers: Headers
    body: Iterable[bytes]

    @classmethod
    def of(cls, status: int, headers: Headers, body: bytes) -> Answer:
        return cls(status, [*headers, ("Content-Length", str(len(body)))], [body])


class Cut(Exception):
    """An end of the connection to the client: by a reset, or as if the answer was complete."""

    def __init__(self, reset: bool) -> None:
        self.reset = reset


class Exchange(BaseHTTPRequestHandler):
    """A connection of a client, with the request that is being answered and its body."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = BLOCK
    server: _Server
    seen: Request
    body: Iterator[bytes]

    def log_message(self, *args: object) -> None:
        """Log nothing."""

    def _exchange(self) -> None:
        self.seen = Request(self.command, self.path, self.headers)
        self.body = self._upload()
        self.server.listener.requests.append(self.seen)
        try:
            answer = self.server.listener.respond(self)
            if answer is not None:
                self.send(answer)
        except Cut as cut:
            self.close_connection = True
            # Closed with a linger time of 0; a shutdown before it would be seen as a proper end.
            if cut.reset:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                os.close(self.connection.detach())
        except ConnectionError:  # One side has left.
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _exchange

    @property
    def chunked(self) -> bool:
        """Whether the request's body comes in chunks."""
        return str(self.headers.get("Transfer-Encoding", "")).lower() == "chunked"

    def _upload(self) -> Iterator[bytes]:
        if not self.chunked:
            yield from self._read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self._line().split(b";")[0], 16):
            yield from self._read(size)
            self._line()
        while self._line().strip():
            pass  # A trailer.

    def _line(self) -> bytes:
        line = self.rfile.readline(BLOCK)
        if not line:
            raise ConnectionAbortedError
        return line

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            block = self.rfile.read1(min(size, BLOCK))
            if not block:
                raise ConnectionAbortedError
            size -= len(block)
            self.seen.length += len(block)
            yield block

    def drain(self) -> None:
        """Read the rest of the request's body, so that the connection can be used again."""
        for _ in self.body:
            pass

    def send(self, answer: Answer) -> None:
        """Send an answer, and end the connection if its body is not as long as announced."""
        said = [int(value) for name, value in answer.headers if name.lower() == "content-length"]
        empty = self.command == "HEAD" or answer.status in (204, 304)
        chunked = not said and not empty
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if empty:
            return
        sent = 0
        for block in answer.body:
            if block:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                sent += len(block)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        elif said != [sent]:
            self.close_connection = True


class _Server(ThreadingMixIn, TCPServer):
    """A server that ends all its connections and threads when it is closed."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], listener: Listener) -> None:
        self.listener = listener
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        super().__init__(address, Exchange)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.listener.errors.append(error)

    def stop(self, thread: threading.Thread) -> None:
        self.stopping.set()
        self.shutdown()
        thread.join()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It has just ended.
        self.server_close()


class Listener:
    """A server that runs in threads of this process within a `with` block.

    Errors of a thread are raised at the end.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = 0
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []

    def respond(self, exchange: Exchange) -> Answer | None:
        """Answer a request, whose body must be read; return None if it is already answered."""
        raise NotImplementedError

    @property
    def host(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def repository(self, name: str) -> str:
        return f"{self.host}/{name}"

    def seen(self, method: str, part: str = "") -> list[Request]:
        """Return the requests with this method and this in their path."""
        return [
            request
            for request in self.requests
            if request.method == method and part in request.path
        ]

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's end."""
        self._server.stopping.wait(seconds)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse all connections meanwhile, and listen at the same address again afterwards."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        self._server = _Server((self.address, self.port), self)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _stop(self) -> None:
        self._server.stop(self._thread)

    def check(self) -> None:
        """Raise the first error of a thread."""
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Any:
        self._start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop()
        if kind is None:
            self.check()


class Recorder(Listener):
    """A separate host that sends the same content for every path, and accepts any upload.

    With another address than the registry's (127.0.0.2), it is where a redirect may lead.
    """

    def __init__(self, content: bytes | Path = b"", address: str = "127.0.0.1") -> None:
        super().__init__(address)
        self.content = content

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        if exchange.command not in ("GET", "HEAD"):
            return Answer.of(201, [], b"")
        if isinstance(self.content, bytes):
            return Answer.of(200, [], self.content)
        return Answer(
            200, [("Content-Length", str(self.content.stat().st_size))], _blocks(self.content)
        )


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


@contextmanager
def dripping(first: bytes) -> Iterator[str]:
    """Serve these bytes to any client, then a byte each fifth of a second, without end.

    Yields the server's address.
    """

    class Drip(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # The client has left.
                self.request.recv(BLOCK)
                self.request.sendall(first)
                while not stopping.wait(0.2):
                    self.request.sendall(b"0")

    stopping = threading.Event()
    with ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            stopping.set()
            server.shutdown()
            thread.join()
