"""Credentials for a registry: which hosts get them, and which do not.

Redirects, challenges, tokens and proxies are covered.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from threading import Barrier

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry import credentials
from flyte_build.cas.registry.connection import Connections
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.errors import (
    RegistryDenied,
    RegistryRefused,
    RegistryUnreachable,
)
from tests.support.caches import opened
from tests.support.clients import (
    LOGIN,
    artifact_of,
    blob_of,
    download,
    log_in,
    no_settings,  # noqa: F401
    repository_of,
    transfer_of,
    upload,
)
from tests.support.faults import FaultProxy
from tests.support.listening import Answer, Exchange, Listener, Recorder
from tests.support.registries import Server, serve

DATA = os.urandom(3_000_000)
ALWAYS = {"times": inf}


@pytest.fixture
def proxy(registry: Server) -> Iterator[FaultProxy]:
    with FaultProxy(registry.url) as proxy:
        yield proxy


@pytest.fixture
def path() -> str:
    return uuid.uuid4().hex


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that wants a password."""
    with serve(tmp_path_factory.mktemp("closed"), login=LOGIN) as server:
        yield server


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that wants tokens."""
    with serve(tmp_path_factory.mktemp("tokens"), login=LOGIN, token=True) as server:
        yield server


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"], ids=["other-port", "other-address"])
def test_a_redirect_to_another_host_gets_no_credentials(
    closed: Server, path: str, cache: Cache, tmp_path: Path, address: str
) -> None:
    with (
        FaultProxy(closed.url) as proxy,
        Recorder(DATA, address) as elsewhere,
        opened(tmp_path / "other") as other,
    ):
        log_in(proxy.host)
        repository = repository_of(proxy.repository(path))
        blob = upload(repository, cache, DATA)
        proxy.on("GET", "/blobs/").redirects(elsewhere.url)
        assert download(repository, other, blob) == DATA
        proxy.on("POST").headers({"Location": f"{elsewhere.url}/up"})
        upload(repository, cache, b"more")
        assert [(each.method, each.headers["Authorization"]) for each in elsewhere.requests] == [
            ("GET", None),
            ("PUT", None),
        ]
        assert proxy.seen("GET", "/blobs/")[0].headers["Authorization"].startswith("Basic ")
        proxy.on("GET", "/blobs/", **ALWAYS).redirects(proxy.url)
        with pytest.raises(RegistryUnreachable, match="too often"):
            download(repository, other, blob)


def test_only_the_registry_itself_may_ask_for_credentials(
    closed: Server, path: str, cache: Cache
) -> None:
    """Only the registry itself gets credentials.

    The challenge of a host to which a redirect or an upload leads is not answered, and no token is
    requested for it.
    """
    with (
        FaultProxy(closed.url) as proxy,
        Recorder() as thief,
        Stranger(f'Bearer realm="{thief.url}/token",service="x"') as stranger,
    ):
        log_in(proxy.host)
        repository = repository_of(proxy.repository(path))
        proxy.on("GET", "manifests").redirects(stranger.url)
        with pytest.raises(RegistryDenied):
            repository.manifest("tag")
        upload(repository, cache, b"data")
        proxy.on("POST").headers({"Location": f"{stranger.url}/up"})
        with pytest.raises(RegistryDenied):
            upload(repository, cache, b"data")
        assert len(stranger.requests) == 2 and not thief.requests
        assert not any(each.headers["Authorization"] for each in stranger.requests)


class Stranger(Listener):
    """A host that wants credentials."""

    def __init__(self, challenge: str) -> None:
        super().__init__()
        self.challenge = challenge

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        return Answer.of(401, [("WWW-Authenticate", self.challenge)], b"")


class World(Listener):
    """A forward proxy that plays all hosts: a registry that wants a token, and its token server."""

    def __init__(self, realm: str) -> None:
        super().__init__()
        self.realm = realm
        self.given: bytes = b'{"token": "abc"}'
        self.status = 200

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        if "/token" in exchange.path:
            return Answer.of(self.status, [], self.given)
        if exchange.headers["Authorization"] == "Bearer abc":
            return Answer.of(404, [], b"")
        return Answer.of(
            401,
            [
                (
                    "WWW-Authenticate",
                    f'Bearer realm="{self.realm}",service="s",scope="repository:x:pull"',
                )
            ],
            b"{}",
        )


PRIVATE = (
    *(
        "10.1.2.3",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "localhost",
        "a.localhost",
        "localhost.",
    ),
    *("[::1]", "[::ffff:10.0.0.1]", "[fe80::1]", "169.254.169.254", "192.168.0.1:8443", "0.0.0.0"),
)


@pytest.mark.parametrize(
    "realm",
    [
        "http://tokens.example.com/token",
        "http://registry.example.org:81/token",
        *(f"https://{host}/token" for host in PRIVATE),
        "ftp://tokens.example.com/token",
        "file:///token",
        "//tokens.example.com/token",
        "https:///token",
        "https://[/token",
        "token",
    ],
)
def test_no_token_is_asked_for_in_the_clear_or_on_a_private_network(
    monkeypatch: pytest.MonkeyPatch, realm: str
) -> None:
    with World(realm) as world:
        monkeypatch.setenv("HTTP_PROXY", world.url)
        monkeypatch.setenv("HTTPS_PROXY", world.url)
        log_in("registry.example.com")
        with pytest.raises(RegistryDenied, match="Cannot request a token"):
            repository_of("http://registry.example.com/x").manifest("tag")
        assert len(world.requests) == 1


def test_a_token_is_had_from_the_registry_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token comes from the registry's realm, with its credentials and for its scopes."""
    with World("http://registry.example.com/token?x=y") as world:
        monkeypatch.setenv("HTTP_PROXY", world.url)
        log_in("registry.example.com")
        assert repository_of("http://registry.example.com/x").manifest("tag") is None
        asked = world.seen("GET", "/token")[0]
        assert (
            asked.path
            == "http://registry.example.com/token?x=y&service=s&scope=repository%3Ax%3Apull"
        )
        assert asked.headers["Authorization"].startswith("Basic ")
        world.given = b'{"access_token": "abc"}'
        assert repository_of("http://registry.example.com/x").manifest("tag") is None
        for given, status in (
            (b"", 200),
            (b"[]", 200),
            (b'{"token": null}', 200),
            (b'{"token": "a\\r\\nX: y"}', 200),
            (b"[" * 60_000, 200),
            (b" " * 100_000 + b'{"token": "abc"}', 200),
            (b'{"token": "abc"}', 401),
            (b'{"token": "abc"}', 307),
        ):
            world.given, world.status = given, status
            with pytest.raises(RegistryDenied, match="Cannot get a token"):
                repository_of("http://registry.example.com/x").manifest("tag")
        world.status = 503
        with pytest.raises(RegistryUnreachable):
            repository_of("http://registry.example.com/x", patience=0).manifest("tag")


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="first", Bearer realm="{}/token",service="s"',
        'Bearer realm="{}/token",service="s", Basic realm="last"',
        'bearer Service="s" , Realm="{}/token", error="invalid_token"',
    ],
)
def test_a_token_is_preferred_where_there_is_a_choice(challenge: str) -> None:
    with World("") as tokens, Stranger(challenge.format(tokens.url)) as registry:
        log_in(registry.host)
        with pytest.raises(RegistryDenied):
            repository_of(registry.repository("x")).manifest("tag")
        assert tokens.requests[0].path == "/token?service=s"
        assert registry.requests[1].headers["Authorization"] == "Bearer abc"
        assert len(registry.requests) <= 4


def test_a_token_serves_for_rights_in_any_order() -> None:
    """Tokens do not depend on the order of rights, and two threads share one.

    Registries list the rights in any order.
    """
    orders, both = iter(["pull,push", "push,pull"]), Barrier(2, timeout=60)

    class Registry(Listener):
        def respond(self, exchange: Exchange) -> Answer:
            exchange.drain()
            if exchange.path.startswith("/token"):
                return Answer.of(200, [], b'{"token": "abc"}')
            if exchange.headers["Authorization"]:
                return Answer.of(200, [], b"")
            both.wait()
            realm = (
                f'Bearer realm="{self.url}/token",service="s",scope="repository:x:{next(orders)}"'
            )
            return Answer.of(401, [("WWW-Authenticate", realm)], b"")

    with Registry() as registry, ThreadPoolExecutor(2) as pool:
        assert all(pool.map(repository_of(registry.repository("x")).has, [blob_of(b"")] * 2))
        assert len(registry.seen("GET", "/token")) == 1


AUTH = base64.b64encode(":".join(LOGIN).encode()).decode()


@pytest.mark.parametrize(
    "document",
    [
        {"HOST": {"auth": AUTH}},
        {"HOST": {"auth": f"{AUTH[:10]}\n{AUTH[10:]}\r\n"}},
        {"HOST": {"username": LOGIN[0], "password": LOGIN[1]}},
        {"https://HOST/v1/": {"auth": AUTH}},
        {"https://HOST": {"auth": AUTH}},
        {"http://HOST/v2": {"auth": AUTH}},
        {"https://HOST/v1/": {"auth": "x"}, "HOST": {"auth": AUTH}},
    ],
)
@pytest.mark.parametrize("way", ["file", "variable"])
def test_credentials_are_understood_as_other_tools_write_them(
    closed: Server, monkeypatch: pytest.MonkeyPatch, document: dict[str, dict[str, str]], way: str
) -> None:
    text = json.dumps(
        {"auths": {name.replace("HOST", closed.host): entry for name, entry in document.items()}}
    )
    if way == "file":
        Path(os.environ["DOCKER_CONFIG"], "config.json").write_text(text)
    else:
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", text)
    assert repository_of(closed.repository("main")).manifest("tag") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hunter2secret", "{} is not valid JSON."),
        ('["hunter2secret"]', "{} is not a JSON object."),
        ('{"auths": ["hunter2secret"]}', "`auths` in {} is not a JSON object."),
        ('{"auths": {"HOST": "hunter2secret"}}', "The entry for HOST in {} is not a JSON object."),
        *(
            (
                '{"auths": {"HOST": {"auth": AUTH}}}'.replace("AUTH", auth),
                "`auth` for HOST in {} is not `user:password` in base64.",
            )
            for auth in (
                "5",
                '"hunter2secret"',
                '"hunter2 secret"',
                '"hunter2\\nX: y"',
                '"hunter2\u00e9"',
                '"aHVudGVyMg=="',
                f'"{AUTH} "',
            )
        ),
    ],
)
def test_credentials_that_are_none_are_neither_sent_nor_shown(
    monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    """Malformed credentials are neither sent nor shown; the error says where they are."""
    path = Path(os.environ["DOCKER_CONFIG"], "config.json")
    with Stranger('Basic realm="x"') as registry:
        text, why = text.replace("HOST", registry.host), why.replace("HOST", registry.host)
        for place in (str(path), "DOCKER_AUTH_CONFIG"):
            if place == str(path):
                path.write_text(text)
            else:
                monkeypatch.setenv(place, text)
            with pytest.raises(RegistryDenied, match="Cannot read the credentials") as raised:
                repository_of(registry.repository("x")).manifest("tag")
            assert raised.value.why == why.format(place) and "hunter2" not in str(raised.value)
        assert [each.headers["Authorization"] for each in registry.requests] == [None, None]


@pytest.mark.parametrize(
    "name", ["docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"]
)
def test_docker_hub_has_one_registry_and_docker_s_own_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Docker Hub has one registry and one entry, whatever its name.

    Credentials that docker wrote are found, and docker finds those written here.
    """
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    host = RepositoryName.of_registry(name).host
    assert host == "registry-1.docker.io" == RepositoryName.parse("docker.io/team/cache").host
    credentials.keep(host, "me", "secret")
    assert list(json.loads((tmp_path / "config.json").read_text())["auths"]) == [
        "https://index.docker.io/v1/"
    ]
    assert credentials.find(host) == credentials.encoded("me", "secret")
    assert credentials.forget(host) and credentials.find(host) is None


def test_a_helper_that_cannot_be_run_is_named(closed: Server) -> None:
    Path(os.environ["DOCKER_CONFIG"], "config.json").write_text('{"credsStore": "nope"}')
    with pytest.raises(
        RegistryDenied, match=r"Cannot run docker-credential-nope, which .*config\.json configures"
    ):
        repository_of(closed.repository("main")).manifest("tag")


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    with (
        Recorder() as registry,
        pytest.raises(RegistryRefused, match="Cannot send a request") as raised,
    ):
        name = RepositoryName.parse(registry.repository("x"))
        Connections(name, Counters()).send(
            "GET", f"{registry.url}/", {"Authorization": "Basic hunter2\nX: y"}
        )
    assert "hunter2" not in str(raised.value) and not registry.requests


def test_one_repository_can_be_closed_to_a_login(tokens: Server, path: str, cache: Cache) -> None:
    assert tokens.tokens is not None
    log_in(tokens.host)
    tokens.tokens.allowed[f"{path}/closed"] = set()
    tokens.tokens.allowed[f"{path}/read"] = {"pull"}
    manifest = artifact_of(cache, DATA)
    transfer_of(cache).push(manifest, repository_of(tokens.repository(f"{path}/own")), "tag")
    with pytest.raises(RegistryDenied):
        repository_of(tokens.repository(f"{path}/closed")).manifest("tag")
    reading = repository_of(tokens.repository(f"{path}/read"))
    assert reading.manifest("tag") is None
    with pytest.raises(RegistryDenied):
        upload(reading, cache, b"data")
    with pytest.raises(RegistryDenied):
        reading.put_manifest(manifest, "tag")
    with pytest.raises(RegistryDenied):
        reading.delete_manifest(manifest.digest)
    other = repository_of(tokens.repository(f"{path}/other"))
    other.upload(
        manifest.layers[0],
        lambda: cache.blobs.open(Digest.of(DATA)),
        lambda count: None,
        RepositoryName.parse(tokens.repository(f"{path}/closed")),
    )
    assert other.has(manifest.layers[0])


def test_a_token_that_expires_during_an_upload_is_renewed(
    tokens: Server, path: str, cache: Cache
) -> None:
    issuer = tokens.tokens
    assert issuer is not None
    with FaultProxy(tokens.url) as proxy:
        log_in(proxy.host)
        repository = repository_of(proxy.repository(path))
        upload(repository, cache, b"first")

        def expire() -> None:
            issuer.lifetime = 300

        proxy.on("POST").calls(lambda: None)
        issuer.lifetime = 1
        proxy.on("PUT").calls(lambda: (time.sleep(2), expire()))
        fresh = repository_of(proxy.repository(path))
        moved: list[int] = []
        blob = upload(fresh, cache, DATA, moved.append)
        puts = [each for each in proxy.seen("PUT") if each.length == len(DATA)]
        assert fresh.has(blob) and len(puts) == 2 and sum(moved) == len(DATA)
        assert puts[0].headers["Authorization"] != puts[1].headers["Authorization"]


def test_a_token_server_that_stalls_is_given_up(registry: Server, path: str) -> None:
    with FaultProxy(registry.url) as tokens, FaultProxy(registry.url) as proxy:
        tokens.on("GET", "/token").stalls(600)
        proxy.on("GET").answers(401, {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token"'})
        with pytest.raises(RegistryUnreachable, match="does not respond"):
            repository_of(proxy.repository(path), patience=0.5).manifest("tag")


class Secure(FaultProxy):
    """The proxy with TLS, by the certificate of a registry that has one."""

    def __init__(self, target: str, folder: Path) -> None:
        super().__init__(target)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "server.pem", folder / "server.key")

    def _start(self) -> None:
        super()._start()
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)


def test_nothing_leads_from_https_to_http(
    registry: Server, path: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(tmp_path / "tls", tls=True) as server, Recorder(b"{}") as clear:
        assert server.ca is not None
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
        with Secure(registry.url, server.ca.parent) as proxy:
            repository = repository_of(f"https://{proxy.repository(path)}")
            assert repository.manifest("tag") is None
            proxy.on("GET").redirects(clear.url)
            with pytest.raises(RegistryRefused, match="from https to http://"):
                repository.manifest("tag")
            proxy.on("POST").answers(202, {"Location": f"{clear.url}/up?signature=hunter2secret"})
            with pytest.raises(RegistryRefused, match="from https to http://") as raised:
                upload(repository, cache, b"data")
            assert "hunter2" not in str(raised.value)
            assert not clear.requests


def test_neither_netrc_nor_cookies_play_a_part(
    proxy: FaultProxy, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password hunter2secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    repository = repository_of(proxy.repository(path))
    proxy.on("GET").answers(404, {"Set-Cookie": "session=1"})
    proxy.on("GET").answers(401, {"WWW-Authenticate": 'Basic realm="x"', "Set-Cookie": "session=2"})
    assert repository.manifest("tag") is None
    with pytest.raises(RegistryDenied):
        repository.manifest("tag")
    assert repository.manifest("tag") is None
    assert [(each.headers["Authorization"], each.headers["Cookie"]) for each in proxy.requests] == [
        (None, None)
    ] * 3
