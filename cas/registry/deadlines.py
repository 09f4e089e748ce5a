"""Deadlines for connections and responses.

The timeout of a socket does not protect against a peer that sends one byte at a time.
"""

from __future__ import annotations

import socket
import time
from functools import partial
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse, HTTPResponse

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool


class Deadlines:
    """Watcher that closes connections whose deadline has passed.

    One thread watches all of them; it starts with the first and ends with the process.
    """

    def __init__(self) -> None:
        self._due: dict[socket.socket, float] = {}
        self._sockets: WeakKeyDictionary[BaseHTTPResponse, socket.socket] = WeakKeyDictionary()
        self._late: WeakKeyDictionary[socket.socket, bool] = WeakKeyDictionary()
        self._changed = Condition()
        self._next = float("inf")
        self._thread: Thread | None = None

    def set(self, connection: socket.socket, seconds: float) -> None:
        """Set the deadline of a connection to `seconds` from now."""
        with self._changed:
            due = self._due[connection] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = Thread(target=self._watch, daemon=True)
                self._thread.start()
            elif due < self._next:
                self._changed.notify()

    def clear(self, connection: socket.socket) -> None:
        """Remove the deadline of a connection."""
        with self._changed:
            self._due.pop(connection, None)

    def follow(self, answer: BaseHTTPResponse, connection: socket.socket) -> None:
        """Remember the connection over which a response arrives."""
        self._sockets[answer] = connection

    def extend(self, answer: BaseHTTPResponse, seconds: float) -> None:
        """Move the deadline of a response to `seconds` from now, if it has one."""
        if (connection := self._sockets.get(answer)) and connection in self._due:
            self.set(connection, seconds)

    def is_late(self, answer: BaseHTTPResponse) -> bool:
        """Whether the connection of a response was closed because its deadline had passed."""
        connection = self._sockets.get(answer)
        return connection is not None and connection in self._late

    def check(self, connection: socket.socket) -> None:
        """Raise `TimeoutError` if a connection was closed because its deadline had passed."""
        if connection in self._late:
            raise TimeoutError("timed out")

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for connection in [each for each, due in self._due.items() if due <= now]:
                    del self._due[connection]
                    self._late[connection] = True
                    try:
                        # Not the method of the TLS socket, which another thread is using.
                        socket.socket.shutdown(connection, socket.SHUT_RDWR)
                    except OSError:
                        pass  # It was closed just now.
                self._next = min(self._due.values(), default=float("inf"))
                self._changed.wait(None if self._next == float("inf") else self._next - now)


class _Timed(HTTPConnection):
    """A connection whose timeouts limit the whole connect and the whole response, not each byte."""

    def __init__(self, deadlines: Deadlines, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadlines = deadlines
        self._opened: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        opened = super()._new_conn()
        if isinstance(self.timeout, int | float):
            self._opened = opened.dup()  # TLS takes over the original before the handshake.
            self._deadlines.set(self._opened, self.timeout)
        return opened

    def connect(self) -> None:
        """Connect, including the exchange with a proxy and the TLS handshake."""
        try:
            super().connect()
        except Exception:
            if self._opened:
                self._deadlines.check(self._opened)
            raise
        finally:
            if self._opened:
                self._deadlines.clear(self._opened)
                self._opened.close()
                self._opened = None

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # As in urllib3.
        connection, deadlines = self.sock, self._deadlines
        if connection is None or not isinstance(self.timeout, int | float):
            return super().getresponse()
        deadlines.set(connection, self.timeout)
        try:
            answer = super().getresponse()
        except Exception:
            deadlines.check(connection)
            raise
        if answer.length_remaining == 0:
            deadlines.clear(connection)
            return answer
        deadlines.follow(answer, connection)
        release = answer.release_conn

        def released() -> None:
            deadlines.clear(connection)
            release()

        # The only call that tells that everything was read.
        answer.release_conn = released  # type: ignore[method-assign]
        return answer


class _TimedTls(_Timed, HTTPSConnection):
    """A timed connection over TLS."""


class TimedAdapter(HTTPAdapter):
    """Adapter of `requests` whose connections are timed, given a connect and a read timeout."""

    def __init__(self, deadlines: Deadlines, **options: Any) -> None:
        self.deadlines = deadlines
        super().__init__(**options)

    def get_connection_with_tls_context(
        self, *arguments: Any, **options: Any
    ) -> HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = partial(
            _TimedTls if pool.scheme == "https" else _Timed, self.deadlines
        )  # type: ignore[assignment]  # It is only called.
        return pool
