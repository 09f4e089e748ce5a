"""Client of the controller's API, for the children of one action.

Two threads serve all callers: one submits what was called since its last request, the other waits
for the ends of children.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

from flyte_build.errors import RuntimeSystemError
from flyte_build.runner.result import Result
from flyte_build.runner.unix_socket import connect

from .raised import refusal_of

_PATIENCE = 5.0  # Seconds for the controller to open its socket.
_ABORT = '{"reason": '
_MOST = 500  # Children in one request.
_MANY = 16  # Children in flight, of which none is waited for alone.
_GATHER = 0.01  # Seconds.
_WAIT = 30  # Seconds that the controller waits before it answers that nothing has ended.


class Refused(Exception):
    """Answer of the controller that a child cannot be called: `problem` is a JSON value."""

    def __init__(self, problem: Mapping[str, str]) -> None:
        super().__init__(problem["message"])
        self.problem = problem


_clients: WeakSet[Client] = WeakSet()


class Client:
    """Client for an action of a run; `endpoint` is the controller's address, as a JSON value."""

    def __init__(self, endpoint: Mapping[str, str], run: str, action: str) -> None:
        self._path, self._token = endpoint["socket"], endpoint["token"]
        self._children, self._action = f"/runs/{run}/actions", action
        self.begin()
        _clients.add(self)

    def begin(self) -> None:
        """Begin anew, as in a forked process, which has no threads."""
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[Result]] = {}
        self._outgoing: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._connections: list[_Connection] = []
        self._failure: Exception | None = None
        self._is_closed = False

    def close(self) -> None:
        """End the threads; nothing is called any more."""
        self._is_closed = True
        self._outgoing.put(("", ""))
        for connection in self._connections:
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)
        for connection in self._connections:
            connection.close()

    def submit(self, document: Mapping[str, Any]) -> Future[Result]:
        """Submit a child, and return its future result, which may also be a `Refused`.

        Raises `TypeError` for a document that is not a JSON value.
        """
        future: Future[Result] = Future()
        text = json.dumps(document)
        with self._lock:
            if self._failure:
                future.set_exception(_unreachable(self._failure))
                return future
            self._waiting[document["id"]] = future
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, args=(each,), daemon=True)
                    for each in (self._send, self._listen)
                ]
                for thread in self._threads:
                    thread.start()
        self._outgoing.put((document["id"], text))
        return future

    def abort(self, id: str, reason: str) -> None:
        """Abort a child; nothing waits for its end."""
        with self._lock:
            self._waiting.pop(id, None)
        self._outgoing.put((id, json.dumps({"reason": reason})))

    def find(self, id: str) -> Result | None:
        """Return the result of a traced call of the action, if it succeeded before."""
        answer = self._ask_once("GET", f"{self._children}/{self._action}/traces/{id}")
        return Result.parse(answer["phase"], answer) if answer else None

    def save(self, id: str, name: str, inputs: Mapping[str, Any], result: Result) -> None:
        """Record the result of a traced call of the action."""
        document = {"name": name, "inputs": inputs, "phase": result.phase, **result.document()}
        self._ask_once("PUT", f"{self._children}/{self._action}/traces/{id}", document)

    def find_deployed(self, text: str, project: str, domain: str) -> Mapping[str, Any]:
        """Return the document of the deployed task `ENV.TASK[:VERSION|@sha256:...]`.

        Raises `NotFound` and other errors of the controller.
        """
        name, _, version = text.replace("@", ":", 1).partition(":")
        names = (project, "domains", domain, "tasks", name, "versions", version or "latest")
        answer = self._ask_once("GET", f"/projects/{'/'.join(map(quote, names))}")
        if problem := answer.get("problem"):
            raise refusal_of(problem)
        found: Mapping[str, Any] = answer
        return found

    def _ask_once(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request from any thread, and return the answer."""
        try:
            connection = _Connection(self._path)
            try:
                text = None if body is None else json.dumps(body)
                return self._ask(connection, method, path, text)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(error) from None

    def _run(self, serve: Any) -> None:
        connection = _Connection(self._path)
        self._connections.append(connection)
        try:
            serve(connection)
        except Exception as error:  # Whatever it is, the callers must not wait forever.
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Fail all calls; usually the controller has ended, and this process is about to."""
        with self._lock:
            self._failure = error
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(_unreachable(error))

    def _send(self, connection: _Connection) -> None:
        while True:
            documents = [self._outgoing.get()]
            while len(documents) < _MOST:
                try:
                    documents.append(self._outgoing.get_nowait())
                except Empty:
                    break
            if self._is_closed:
                return
            aborts = [each for each in documents if each[1].startswith(_ABORT)]
            if calls := [each for each in documents if each not in aborts]:
                body = f"[{','.join(text for _, text in calls)}]"
                answers = self._ask(connection, "POST", f"{self._children}/", body)
                for (id, _), answer in zip(calls, answers, strict=True):
                    self._settle(id, answer)
            for id, text in aborts:
                with suppress(ValueError):  # It was refused, or has ended.
                    self._ask(connection, "POST", f"{self._children}/{id}/abort", text)

    def _listen(self, connection: _Connection) -> None:
        since = 0
        while True:
            path = f"{self._children}/{self._action}/events?since={since}&wait={_WAIT}"
            for ending in self._ask(connection, "GET", path):
                since = ending["number"]
                self._settle(ending["id"], ending)
            if len(self._waiting) > _MANY:
                time.sleep(_GATHER)  # One request for several ends.

    def _settle(self, id: str, answer: Mapping[str, Any]) -> None:
        """Set the result of a child, if the answer has one."""
        if not answer:
            return
        with self._lock:
            future = self._waiting.pop(id, None)
        if future is None or future.cancelled():
            return
        if problem := answer.get("problem"):
            future.set_exception(Refused(problem))
        else:
            future.set_result(Result.parse(answer["phase"], answer))

    def _ask(self, connection: _Connection, method: str, path: str, body: str | None = None) -> Any:
        """Send a request, which may arrive twice, and return the answer."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else body.encode()
        try:
            connection.request(method, f"/api/v1{path}", data, headers)
            response = connection.getresponse()
        except ConnectionError:  # The server has closed it while it was idle.
            if self._is_closed:
                raise
            connection.close()
            connection.request(method, f"/api/v1{path}", data, headers)
            response = connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise ValueError(f"HTTP {response.status}: {content[:1000].decode(errors='replace')}")
        return json.loads(content) if content else None


def _unreachable(error: Exception) -> RuntimeSystemError:
    message = "Cannot reach the controller of the run"
    return RuntimeSystemError("RuntimeSystemError", message, why=str(error))


def _begin_anew() -> None:
    for client in _clients:
        client.begin()


os.register_at_fork(after_in_child=_begin_anew)


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect to the socket, which the controller opens while its first worker begins."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.sock: socket.socket = connect(self._path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
