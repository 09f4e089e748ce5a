"""A reverse proxy in front of a registry, with faults that a test sets.

    with FaultProxy(server.url) as proxy:
        proxy.on("GET", r"/blobs/").reset_after(1000)
        ...                          # A client that uses proxy.repository("name").
        assert len(proxy.seen("GET", "/blobs/")) == 2

The first fault that matches a request and is not used up happens, so faults for the same requests
happen one after the other. A fault that never happened, or for which a body was too short, fails
the test when the proxy ends.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf

from tests.support.listening import BLOCK, Answer, Cut, Exchange, Headers, Listener

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
}


@dataclass
class _Fault:
    """A fault of the next `left` matching requests.

    It acts before a request is passed on, on its body, and on the answer.
    """

    method: str
    path: str
    left: float
    before: Callable[[Exchange], Answer | None] = lambda _: None
    upload: Callable[[Iterable[bytes]], Iterable[bytes]] = lambda blocks: blocks
    answer: Callable[[Answer], Answer] = lambda answer: answer
    happened: bool = False

    def fits(self, exchange: Exchange) -> bool:
        return (
            self.left > 0
            and re.fullmatch(self.method, exchange.command) is not None
            and re.search(self.path, exchange.path) is not None
        )


class FaultProxy(Listener):
    """A proxy that passes requests on to the registry at the URL `target`.

    It keeps them in `requests`. Bodies stream in both directions. The registry sees this proxy's
    host; where it answers with its own URL, the client gets one of the proxy's.
    """

    def __init__(self, target: str, address: str = "127.0.0.1") -> None:
        super().__init__(address)
        self._target = target.removeprefix("http://")
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def on(self, method: str, path: str = "", times: float = 1) -> When:
        """Select the next `times` requests that match these regular expressions.

        One is for the method, the other one for the path with its query; `inf` selects all requests
        from now on.
        """
        return When(self, method, path, times)

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            unused = [
                f"{fault.method} {fault.path}" for fault in self._faults if not fault.happened
            ]
            self._faults.clear()
        assert not unused, f"these faults never happened: {unused}"

    def check(self) -> None:
        super().check()
        self.clear()

    def add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _next(self, exchange: Exchange) -> _Fault:
        with self._lock:
            fault = next(
                (fault for fault in self._faults if fault.fits(exchange)), _Fault("", "", inf)
            )
            fault.left -= 1
            fault.happened = True
            return fault

    def respond(self, exchange: Exchange) -> Answer | None:
        fault = self._next(exchange)
        ready = fault.before(exchange)
        if ready is not None:
            exchange.drain()
            return ready
        with closing(http.client.HTTPConnection(self._target, timeout=60)) as registry:
            answer = self._forward(exchange, registry, fault)
            exchange.drain()
            exchange.send(fault.answer(answer))
        return None

    def _forward(
        self, exchange: Exchange, registry: http.client.HTTPConnection, fault: _Fault
    ) -> Answer:
        registry.putrequest(
            exchange.command, exchange.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in exchange.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                registry.putheader(name, value)
        if exchange.chunked:
            registry.putheader("Transfer-Encoding", "chunked")
        registry.endheaders()
        for block in fault.upload(exchange.body):
            try:
                registry.send(b"%x\r\n%b\r\n" % (len(block), block) if exchange.chunked else block)
            except ConnectionError:  # The registry has answered without reading to the end.
                break
        else:
            if exchange.chunked:
                registry.send(b"0\r\n\r\n")
        response = registry.getresponse()
        headers = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in _HOP_BY_HOP
        ]
        own = re.compile(f"^http://({re.escape(self._target)}|{re.escape(self.host)})")
        headers = [
            (name, own.sub(self.url, value) if name.lower() == "location" else value)
            for name, value in headers
        ]
        return Answer(response.status, headers, iter(lambda: response.read1(BLOCK), b""))


@dataclass(frozen=True)
class When:
    """A selection of requests; each method sets a fault for them."""

    proxy: FaultProxy
    method: str
    path: str
    times: float

    def _add(
        self,
        before: Callable[[Exchange], Answer | None] = _Fault.before,
        upload: Callable[[Iterable[bytes]], Iterable[bytes]] = _Fault.upload,
        answer: Callable[[Answer], Answer] = _Fault.answer,
    ) -> None:
        self.proxy.add(_Fault(self.method, self.path, self.times, before, upload, answer))

    def passes(self) -> None:
        """Pass the requests on: for a fault of a later one."""
        self._add()

    def calls(self, function: Callable[[], object]) -> None:
        """Call `function`, then pass the request on."""

        def before(exchange: Exchange) -> None:
            function()

        self._add(before)

    def answers(
        self, status: int, headers: Mapping[str, str] = {}, body: bytes | Iterable[bytes] = b""
    ) -> None:
        """Answer with these values, and pass nothing on.

        A body other than `bytes` is sent in chunks, without a length.
        """

        def before(_: Exchange) -> Answer:
            if isinstance(body, bytes):
                return Answer.of(status, list(headers.items()), body)
            return Answer(status, list(headers.items()), body)

        self._add(before)

    def redirects(self, base: str, status: int = 307) -> None:
        """Redirect the client to the same path below another URL, and pass nothing on."""
        self._add(lambda exchange: Answer.of(status, [("Location", base + exchange.path)], b""))

    def closes(self) -> None:
        """Close the connection without passing the request on, answering, or reading its body."""

        def before(exchange: Exchange) -> None:
            raise Cut(reset=False)

        self._add(before)

    def loses_answer(self) -> None:
        """Pass the request on to the registry, and close the connection without an answer."""

        def answer(_: Answer) -> Answer:
            raise Cut(reset=False)

        self._add(answer=answer)

    def reset_after(self, count: int) -> None:
        """Reset the connection after `count` bytes of the answer's body."""
        self._add(answer=lambda answer: replace(answer, body=_cut(answer.body, count, reset=True)))

    def end_after(self, count: int) -> None:
        """Close the connection after `count` bytes of the answer's body, fewer than announced."""
        self._add(answer=lambda answer: replace(answer, body=_cut(answer.body, count, reset=False)))

    def cut_request_after(self, count: int) -> None:
        """Pass `count` bytes of the request's body on, then close both connections."""
        self._add(upload=lambda blocks: _cut(blocks, count, reset=True))

    def stalls(self, seconds: float, after: int | None = None) -> None:
        """Pause before the request, or `after` so many bytes of the answer's body."""

        def before(exchange: Exchange) -> None:
            self.proxy.pause(seconds)

        if after is None:
            self._add(before)
        else:
            self._add(
                answer=lambda answer: replace(
                    answer, body=_change(answer.body, after, lambda: self.proxy.pause(seconds))
                )
            )

    def drips(self, data: bytes) -> None:
        """Answer `data`, raw, then a byte each fifth of a second, without end; pass nothing on."""

        def before(exchange: Exchange) -> None:
            exchange.wfile.write(data)
            while True:
                exchange.wfile.write(b"0")
                self.proxy.pause(0.2)

        self._add(before)

    def changes(self, change: Callable[[Answer], Answer]) -> None:
        """Answer with the result of the function."""
        self._add(answer=change)

    def flips(self, at: int = 0) -> None:
        """Flip a bit of the byte at this offset of the answer's body."""
        self._add(answer=lambda answer: replace(answer, body=_flip(answer.body, at)))

    def replaces(self, change: bytes | Callable[[bytes], bytes]) -> None:
        """Replace the answer's body by these bytes or the function's result, with its length."""

        def answer(answer: Answer) -> Answer:
            body = change if isinstance(change, bytes) else change(b"".join(answer.body))
            return Answer.of(answer.status, _without(answer.headers, "content-length"), body)

        self._add(answer=answer)

    def appends(self, data: bytes) -> None:
        """Append these bytes to the answer's body, and adjust its length."""
        self.replaces(lambda body: body + data)

    def headers(self, changes: Mapping[str, str | Callable[[str], str] | None]) -> None:
        """Change headers of the answer: `None` drops one, a function maps its old value."""

        def answer(answer: Answer) -> Answer:
            headers = answer.headers
            for name, change in changes.items():
                old = [value for known, value in headers if known.lower() == name.lower()]
                headers = _without(headers, name.lower())
                if callable(change):
                    headers += [(name, change(old[0]))]
                elif change is not None:
                    headers += [(name, change)]
            return replace(answer, headers=headers)

        self._add(answer=answer)


def _without(headers: Headers, name: str) -> Headers:
    return [(known, value) for known, value in headers if known.lower() != name]


def _change(blocks: Iterable[bytes], at: int, happen: Callable[[], object]) -> Iterator[bytes]:
    """Yield the same bytes, and call `happen` before the byte at this offset is requested."""
    for block in blocks:
        if 0 <= at < len(block):
            if at:
                yield block[:at]
            happen()
            block = block[at:]
            at = -1
        elif at >= 0:
            at -= len(block)
        yield block
    assert at < 0, f"the body ends {at + 1} bytes before the place of the fault"


def _cut(blocks: Iterable[bytes], count: int, reset: bool) -> Iterator[bytes]:
    def happen() -> None:
        raise Cut(reset)

    return _change(blocks, count, happen)


def _flip(blocks: Iterable[bytes], at: int) -> Iterator[bytes]:
    changing = False

    def happen() -> None:
        nonlocal changing
        changing = True

    for block in _change(blocks, at, happen):
        yield bytes([block[0] ^ 1]) + block[1:] if changing else block
        changing = False
