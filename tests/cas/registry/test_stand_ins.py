"""The registries, proxies and faults that other tests use behave as documented.

The client here is that of the standard library alone.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.faults import FaultProxy, When
from tests.support.files import temporary
from tests.support.listening import Recorder
from tests.support.registries import Server, forward_proxy, serve

DATA = b"0123456789" * 10_000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@dataclass
class Response:
    status: int
    headers: Message
    body: bytes


def ask(
    method: str,
    url: str,
    body: Any = None,
    headers: Mapping[str, str] = {},
    *,
    ca: Path | None = None,
    timeout: float = 30,
) -> Response:
    """Send one request on a new connection."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    client: http.client.HTTPConnection = (
        http.client.HTTPSConnection(
            parts.hostname,
            parts.port,
            timeout=timeout,
            context=ssl.create_default_context(cafile=ca),
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    )
    with closing(client):
        client.request(
            method,
            f"{parts.path}?{parts.query}" if parts.query else parts.path,
            body,
            dict(headers),
        )
        response = client.getresponse()
        return Response(response.status, response.headers, response.read())


def push(
    base: str, name: str, data: Any = DATA, headers: Mapping[str, str] = {}, ca: Path | None = None
) -> Response:
    """Upload a blob, and return the last answer, or the first one if it is a refusal."""
    begun = ask("POST", f"{base}/v2/{name}/blobs/uploads/", headers=headers, ca=ca)
    if begun.status != 202:
        return begun
    return ask(
        "PUT",
        f"{begun.headers['Location']}&digest={DIGEST}",
        data,
        {**headers, "Content-Type": "application/octet-stream"},
        ca=ca,
    )


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_a_registry_keeps_what_it_is_sent_in_its_folder(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        assert push(server.url, "some/name").status == 201
        assert server.blob(DIGEST).read_bytes() == DATA
        url = f"{server.url}/v2/some/name/blobs/{DIGEST}"
        assert ask("GET", url).body == DATA
        server.blob(DIGEST).write_bytes(DATA[::-1])
        assert ask("GET", url).body == DATA[::-1]
        assert ask("DELETE", url).status == 202
        assert ask("HEAD", url).status == 404


def test_each_test_has_a_repository_of_its_own(registry: Server, repository: str) -> None:
    host, _, name = repository.partition("/")
    assert host == registry.host
    assert ask("GET", f"{registry.url}/v2/{name}/tags/list").status == 404


def test_a_registry_that_is_served_again_keeps_its_blobs_and_can_refuse_changes(
    tmp_path: Path,
) -> None:
    with serve(tmp_path, delete=False) as server:
        assert push(server.url, "some/name").status == 201
        assert ask("DELETE", f"{server.url}/v2/some/name/blobs/{DIGEST}").status == 405
    with serve(tmp_path, read_only=True) as server:
        assert ask("GET", f"{server.url}/v2/some/name/blobs/{DIGEST}").body == DATA
        assert push(server.url, "some/name").status == 405
    with pytest.raises(ConnectionRefusedError):
        ask("GET", server.url)


def test_a_registry_can_want_a_password_and_have_a_certificate_of_a_private_authority(
    tmp_path: Path,
) -> None:
    with serve(tmp_path, login=("ann", "secret"), tls=True) as server:
        assert server.url.startswith("https://")
        assert push(server.url, "name", headers=basic("ann", "secret"), ca=server.ca).status == 201
        assert push(server.url, "name", headers=basic("ann", "wrong"), ca=server.ca).status == 401
        refused = push(server.url, "name", ca=server.ca)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (
            401,
            'Basic realm="registry"',
        )
        assert (
            push(
                server.url.replace("127.0.0.1", "localhost"),
                "name",
                headers=basic("ann", "secret"),
                ca=server.ca,
            ).status
            == 201
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            ask("GET", f"{server.url}/v2/")


def test_a_registry_can_want_tokens_which_are_for_one_repository_and_expire(tmp_path: Path) -> None:
    with serve(tmp_path, login=("ann", "secret"), token=True) as server:
        tokens = server.tokens
        assert tokens is not None

        def token(scope: str) -> dict[str, str]:
            url = f"{tokens.url}/token?service=registry.test&scope={scope}"
            return {
                "Authorization": (
                    "Bearer "
                    + json.loads(ask("GET", url, headers=basic("ann", "secret")).body)["token"]
                )
            }

        # Its order is no matter.
        challenge = (
            push(server.url, "main").headers["WWW-Authenticate"].replace("push,pull", "pull,push")
        )
        assert (
            challenge == "Bearer"
            f' realm="{tokens.url}/token",service="registry.test",scope="repository:main:pull,push"'
        )
        assert ask("GET", f"{tokens.url}/token", headers=basic("ann", "wrong")).status == 401
        assert push(server.url, "main", headers=token("repository:main:pull,push")).status == 201
        assert push(server.url, "main", headers=token("repository:main:pull")).status == 401
        assert push(server.url, "main", headers=token("repository:other:pull,push")).status == 401
        tokens.allowed["main"] = {"pull"}
        assert push(server.url, "main", headers=token("repository:main:pull,push")).status == 401
        assert (
            ask(
                "GET",
                f"{server.url}/v2/main/blobs/{DIGEST}",
                headers=token("repository:main:pull,push"),
            ).body
            == DATA
        )
        tokens.lifetime = 0
        assert push(server.url, "other", headers=token("repository:other:pull,push")).status == 401
        assert len(tokens.seen("GET", "scope=repository:main")) == 4


@pytest.fixture
def proxy(registry: Server) -> Iterator[FaultProxy]:
    """A fault proxy before a registry that has the blob DATA in the repository `name`."""
    assert push(registry.url, "name").status == 201
    with FaultProxy(registry.url) as proxy:
        yield proxy


def blob(proxy: FaultProxy, method: str = "GET", **options: Any) -> Response:
    return ask(method, f"{proxy.url}/v2/name/blobs/{DIGEST}", **options)


def test_without_a_fault_the_proxy_passes_all_on_and_keeps_the_client(proxy: FaultProxy) -> None:
    answer = blob(proxy, headers={"Range": "bytes=10-19", "X-Own": "1"})
    assert (answer.status, answer.body) == (206, DATA[10:20])
    assert blob(proxy, "HEAD").headers["Content-Length"] == str(len(DATA))
    assert push(proxy.url, "copy", iter([DATA[:7], DATA[7:]])).status == 201  # In chunks.
    begun = proxy.seen("POST")[0]
    sent = proxy.seen("PUT", begun.path)[0]
    assert (
        sent.length == len(DATA)
        and sent.path.startswith(begun.path)
        and sent.headers["transfer-encoding"] == "chunked"
    )
    assert proxy.requests[0].headers["x-own"] == "1"
    assert [request.method for request in proxy.requests] == ["GET", "HEAD", "POST", "PUT"]


def test_one_connection_to_the_proxy_carries_many_requests(proxy: FaultProxy) -> None:
    proxy.on("PUT").answers(413)
    with closing(http.client.HTTPConnection(proxy.host, timeout=30)) as client:
        client.connect()
        opened = client.sock
        for method, body, status in (
            ("GET", None, 200),
            ("PUT", DATA, 413),
            ("HEAD", None, 200),
            ("DELETE", iter([b"a"]), 202),
        ):
            client.request(method, f"/v2/name/blobs/{DIGEST}", body)
            response = client.getresponse()
            response.read()
            assert response.status == status and client.sock is opened


def test_bodies_of_any_size_pass_through_in_little_memory() -> None:
    """A body of 100 MB passes in both directions, while the process grows by less than 30 MB."""
    code = """
import hashlib, http.client, resource, sys
from tests.support.files import temporary
from tests.support.faults import FaultProxy
from tests.cas.registry.test_stand_ins import ask

block = bytes(1 << 20)
whole = hashlib.sha256()
for _ in range(100):
    whole.update(block)
digest = "sha256:" + whole.hexdigest()
with FaultProxy(sys.argv[1]) as proxy:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    place = ask("POST", proxy.url + "/v2/large/blobs/uploads/").headers["Location"]
    assert place.startswith(proxy.url)
    assert ask("PUT", place + "&digest=" + digest, iter([block] * 100)).status == 201
    client = http.client.HTTPConnection(proxy.host)
    client.request("GET", "/v2/large/blobs/" + digest)
    with client.getresponse() as response:
        assert sum(map(len, iter(lambda: response.read(1 << 20), b""))) == 100 << 20
    client.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 30 << (10 if sys.platform == "linux" else 20), grown
"""
    with temporary() as folder, serve(folder) as server:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, server.url],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_faults_for_the_same_requests_happen_one_after_the_other(proxy: FaultProxy) -> None:
    proxy.on("GET|HEAD", "/blobs/").answers(503, {"Retry-After": "7"}, b"busy")
    proxy.on("GET", "/blobs/", times=2).answers(429)
    proxy.on("GET", "/blobs/").passes()
    proxy.on("GET", "/blobs/", times=inf).answers(404)
    first = blob(proxy)
    assert (first.status, first.headers["Retry-After"], first.body) == (503, "7", b"busy")
    assert [blob(proxy).status for _ in range(6)] == [429, 429, 200, 404, 404, 404]
    assert blob(proxy, "HEAD").status == 200
    proxy.clear()
    assert blob(proxy).status == 200


@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 413, 416, 429, 500, 502, 503])
def test_any_status_can_be_the_answer_to_an_upload(proxy: FaultProxy, status: int) -> None:
    proxy.on("PUT", "digest=").answers(status, {"X-Own": "1"}, b"{}")
    refused = push(proxy.url, "name")
    assert (refused.status, refused.headers["X-Own"], refused.body) == (status, "1", b"{}")
    assert proxy.seen("PUT")[0].length == len(DATA)
    assert push(proxy.url, "name").status == 201


def test_the_connection_ends_before_an_answer(proxy: FaultProxy) -> None:
    proxy.on("DELETE").closes()
    with pytest.raises(http.client.RemoteDisconnected):
        blob(proxy, "DELETE")
    assert blob(proxy).body == DATA
    proxy.on("DELETE").loses_answer()
    with pytest.raises(http.client.RemoteDisconnected):
        blob(proxy, "DELETE")
    assert blob(proxy).status == 404


def read(proxy: FaultProxy) -> tuple[bytes, type[Exception] | None]:
    """Read the blob's body, and return the bytes and the exception that ended it."""
    got = b""
    with closing(http.client.HTTPConnection(proxy.host, timeout=30)) as client:
        client.request("GET", f"/v2/name/blobs/{DIGEST}")
        response = client.getresponse()
        assert response.status == 200 and response.headers["Content-Length"] == str(len(DATA))
        try:
            while block := response.read(1000):
                got += block
        except (http.client.HTTPException, OSError) as error:
            return got, type(error)
    return got, None


@pytest.mark.parametrize("count", [0, 1000, len(DATA) - 1])
def test_the_body_is_cut_by_a_reset_or_an_end(proxy: FaultProxy, count: int) -> None:
    """A client gets `count` bytes before the end, and at most as many before a reset."""
    proxy.on("GET").reset_after(count)
    got, error = read(proxy)
    assert error is ConnectionResetError and len(got) <= count and DATA.startswith(got)
    proxy.on("GET").end_after(count)
    # Python's client says nothing of a short body that is read in blocks.
    assert read(proxy) == (DATA[:count], None)
    assert read(proxy) == (DATA, None)


def test_an_upload_is_cut(proxy: FaultProxy) -> None:
    """A blob whose upload was cut is not in the registry, which may keep a part of a chunk."""
    proxy.on("PUT", "digest=").cut_request_after(5000)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        push(proxy.url, "cut")
    assert ask("HEAD", f"{proxy.url}/v2/cut/blobs/{DIGEST}").status == 404


def test_an_answer_stalls_before_or_in_its_body(proxy: FaultProxy) -> None:
    """A stalled answer is given up by a short timeout, and read in full by a long one.

    The end of the proxy does not wait for it.
    """
    proxy.on("GET").stalls(600)
    with pytest.raises(TimeoutError):
        blob(proxy, timeout=0.2)
    proxy.on("GET").stalls(600, after=1000)
    with closing(http.client.HTTPConnection(proxy.host, timeout=30)) as client:
        client.request("GET", f"/v2/name/blobs/{DIGEST}")
        response = client.getresponse()
        assert response.read(1000) == DATA[:1000]
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            response.read(1000)
    proxy.on("GET").stalls(0.1)
    proxy.on("GET").stalls(0.1, after=99_000)
    assert blob(proxy).body == DATA == blob(proxy).body


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda on: on.flips(), b"1" + DATA[1:]),
        (lambda on: on.flips(70_000), DATA[:70_000] + b"1" + DATA[70_001:]),
        (lambda on: on.flips(len(DATA) - 1), DATA[:-1] + b"8"),
        (lambda on: on.appends(b"more"), DATA + b"more"),
        (lambda on: on.replaces(b"other"), b"other"),
        (lambda on: on.replaces(lambda body: body[:-1]), DATA[:-1]),
        (lambda on: on.headers({"Content-Length": "5"}), DATA[:5]),
        (lambda on: on.headers({"Content-Length": None}), DATA),
    ],
)
def test_the_body_is_another_one(
    proxy: FaultProxy, fault: Callable[[When], None], expected: bytes
) -> None:
    fault(proxy.on("GET"))
    assert blob(proxy).body == expected
    assert blob(proxy).body == DATA


def test_headers_are_dropped_and_changed(proxy: FaultProxy) -> None:
    proxy.on("HEAD").headers({"docker-content-digest": None, "Content-Length": "7", "X-New": "1"})
    answer = blob(proxy, "HEAD")
    assert (
        answer.headers["Docker-Content-Digest"],
        answer.headers["Content-Length"],
        answer.headers["X-New"],
    ) == (None, "7", "1")
    assert blob(proxy, "HEAD").headers["Docker-Content-Digest"] == DIGEST
    proxy.on("POST").headers({"Location": lambda url: url.removeprefix(proxy.url)})
    relative = ask("POST", f"{proxy.url}/v2/name/blobs/uploads/").headers.get_all("Location")
    assert relative is not None and len(relative) == 1 and relative[0].startswith("/v2/name/")
    assert ask("PUT", f"{proxy.url}{relative[0]}&digest={DIGEST}", DATA).status == 201


def test_an_answer_without_end_is_sent_in_chunks(proxy: FaultProxy) -> None:
    proxy.on("GET").answers(
        200, {"Content-Type": "application/json"}, iter(lambda: b"[" * 1000, b"")
    )
    with closing(http.client.HTTPConnection(proxy.host, timeout=30)) as client:
        client.request("GET", "/v2/name/manifests/tag")
        assert client.getresponse().read(1_000_000) == b"[" * 1_000_000


def test_something_else_happens_between_two_requests(tmp_path: Path) -> None:
    with serve(tmp_path) as server, FaultProxy(server.url) as proxy:
        assert push(server.url, "name").status == 201
        proxy.on("GET").calls(server.blob(DIGEST).unlink)
        assert blob(proxy, "HEAD").status == 200
        assert blob(proxy).status == 404


def test_a_redirect_leads_to_another_host(proxy: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    try:
        socket.create_server(("127.0.0.2", 0)).close()
    except OSError:
        pytest.skip("this machine has no second loopback address")
    with Recorder(tmp_path / "file", "127.0.0.2") as other:
        proxy.on("GET").redirects(other.url)
        redirect = blob(proxy, headers=basic("ann", "secret"))
        assert (redirect.status, redirect.headers["Location"]) == (
            307,
            f"{other.url}/v2/name/blobs/{DIGEST}",
        )
        assert ask("GET", redirect.headers["Location"], headers={"X-Own": "1"}).body == DATA
        assert ask("PUT", f"{other.url}/any", b"abc").status == 201
        assert [(seen.method, seen.length, seen.headers["X-Own"]) for seen in other.requests] == [
            ("GET", 0, "1"),
            ("PUT", 3, None),
        ]
        assert [seen.headers["Authorization"] for seen in proxy.requests] == [
            basic("ann", "secret")["Authorization"]
        ]


def test_the_proxy_goes_down_and_comes_back(proxy: FaultProxy) -> None:
    with proxy.down(), pytest.raises(ConnectionRefusedError):
        blob(proxy)
    assert blob(proxy).body == DATA


def test_a_fault_that_did_not_happen_fails_the_test(registry: Server) -> None:
    assert push(registry.url, "name").status == 201
    with (
        pytest.raises(AssertionError, match="these faults never happened"),
        FaultProxy(registry.url) as proxy,
    ):
        proxy.on("PATCH").closes()
        blob(proxy)
    with (
        pytest.raises(AssertionError, match="the body ends 1 bytes before the place of the fault"),
        FaultProxy(registry.url) as proxy,
    ):
        proxy.on("GET").flips(len(DATA))
        blob(proxy)


def test_requests_go_through_a_forward_proxy(registry: Server, tmp_path: Path) -> None:
    """Requests pass a forward proxy, plainly for http and through a tunnel for https.

    With a login, only its owner can use the proxy.
    """
    assert push(registry.url, "name").status == 201

    def through(url: str, target: str, headers: Mapping[str, str] = {}) -> Response:
        with closing(
            http.client.HTTPConnection(urlsplit(url).netloc.rpartition("@")[2], timeout=30)
        ) as client:
            client.request("GET", target, headers=dict(headers))
            response = client.getresponse()
            return Response(response.status, response.headers, response.read())

    target = f"{registry.url}/v2/name/blobs/{DIGEST}"
    with forward_proxy(tmp_path / "open") as proxy:
        assert through(proxy.url, target).body == DATA
        assert proxy.requests() == [f"GET {target} HTTP/1.1"]
        with serve(tmp_path / "tls", tls=True) as server:
            host, _, port = server.host.partition(":")
            context = ssl.create_default_context(cafile=server.ca)
            with closing(
                http.client.HTTPSConnection(urlsplit(proxy.url).netloc, timeout=30, context=context)
            ) as client:
                client.set_tunnel(host, int(port))
                client.request("GET", "/v2/")
                assert client.getresponse().status == 200
        assert proxy.requests()[1].startswith(f"CONNECT {server.host} ")
    with forward_proxy(tmp_path / "closed", login=("bob", "word")) as proxy:
        assert proxy.url.startswith("http://bob:word@")
        assert through(proxy.url, target).status == 407
        login = basic("bob", "word")["Authorization"]
        assert through(proxy.url, target, {"Proxy-Authorization": login}).body == DATA


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        ("", "2 skipped"),
        ("skopeo", "1 failed, 1 skipped"),
        ("skopeo,registry", "2 failed"),
        ("scopeo", "names scopeo"),
    ],
)
def test_a_missing_program_skips_its_tests_unless_it_is_required(
    tmp_path: Path, required: str, expected: str
) -> None:
    (tmp_path / "test_it.py").write_text(
        "from tests.support.needs import need\n\ndef test_one():\n    need('skopeo')\n\ndef test_two():\n  "
        "  need('registry')\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "PATH": str(tmp_path),
        "FLYTE_TEST_REQUIRE": required,
    }
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "test_it.py",
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert expected in done.stdout + done.stderr
