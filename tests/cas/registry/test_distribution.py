"""A registry as a repository: logins, proxies, authorities, pages of tags, kept connections."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import EMPTY_CONFIG
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.errors import (
    RegistryCorrupt,
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from tests.support.caches import opened
from tests.support.clients import (
    LOGIN,
    artifact_of,
    blob_of,
    docker_config,
    log_in,
    no_settings,  # noqa: F401
    repository_of,
    seen,
    transfer_of,
    upload,
)
from tests.support.faults import FaultProxy
from tests.support.listening import Answer, Exchange, Listener
from tests.support.registries import Server, serve
from tests.support.servers import Servers


def test_without_its_login_a_registry_refuses_all(servers: Servers, cache: Cache) -> None:
    for server in (servers.registry(password=True), servers.registry(token=True)):
        for login in (None, ("ann", "wrong")):
            if login:
                log_in(server.host, login)
            for ask in (
                lambda it: it.manifest("tag"),
                lambda it: it.has(blob_of(b"")),
                lambda it: it.tags(),
                lambda it: upload(it, cache, b"data"),
                lambda it: it.put_manifest(artifact_of(cache)),
                lambda it: it.delete_manifest(Digest.of(b"")),
            ):
                with pytest.raises(RegistryDenied) as raised:
                    ask(repository_of(server.repository("main")))
                assert (
                    f"flyte registry login {server.host}" in raised.value.hint
                    and "wrong" not in str(raised.value)
                )
        Path(os.environ["DOCKER_CONFIG"], "config.json").unlink()


def test_requests_go_through_the_proxy_of_the_environment(
    servers: Servers, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, plain, secure = servers.proxy(), servers.registry(), servers.registry(tls=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure.ca))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)

    def through(server: Server, patience: float = 5.0) -> list[str]:
        before = len(proxy.requests())
        assert (
            repository_of(server.repository("through"), patience=patience).manifest("tag") is None
        )
        return proxy.requests()[before:]

    assert through(plain)[-1] == f"GET {plain.url}/v2/through/manifests/tag HTTP/1.1"
    assert through(secure)[-1].startswith(f"CONNECT {secure.host} ")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert through(plain) == through(secure) == []
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("proxyword", "otherword"))
    with pytest.raises(RegistryError) as raised:
        through(plain, patience=0)
    assert "otherword" not in str(raised.value)
    monkeypatch.setenv("HTTP_PROXY", "http://bob:proxyword@127.0.0.1:1")
    with pytest.raises(RegistryUnreachable) as unreachable:
        through(plain, patience=0)
    assert "proxyword" not in str(unreachable.value)


def test_an_authority_is_trusted_where_a_variable_names_it(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = servers.registry(tls=True)
    name = f"https://{server.repository('main')}"
    with pytest.raises(RegistryUnreachable, match="Cannot verify the certificate") as raised:
        repository_of(name).manifest("tag")
    assert "SSL_CERT_FILE" in raised.value.hint
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(server.ca))
        assert repository_of(name).manifest("tag") is None
        monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
        with pytest.raises(RegistryUnreachable):
            repository_of(name).manifest("tag")
        monkeypatch.delenv(variable)


def test_http_is_used_for_this_machine_or_where_it_is_asked_for(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP is used for hosts on this machine that do not speak TLS, and where `http://` is given.

    A host given with `http://` is never asked over TLS.
    """
    plain, secure = servers.registry(), servers.registry(tls=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.ca))
    for host in (
        plain.host,
        plain.host.replace("127.0.0.1", "localhost"),
        f"http://{plain.host}",
        secure.host,
        f"https://{secure.host}",
    ):
        there = repository_of(f"{host}/some/where")
        assert there.manifest("tag") is None
        assert not there.has(blob_of(b"none")) and not there.tags()
    with pytest.raises(RegistryError):
        repository_of(f"http://{secure.host}/some").manifest("tag")
    with pytest.raises(RegistryUnreachable):
        repository_of(f"https://{plain.host}/some", patience=0).manifest("tag")


def test_a_registry_that_does_not_delete_says_so(tmp_path: Path, cache: Cache) -> None:
    with serve(tmp_path / "registry", delete=False) as server:
        repository = repository_of(server.repository("main"))
        manifest = artifact_of(cache, b"layer")
        transfer_of(cache).push(manifest, repository, "tag")
        with pytest.raises(RegistryRefused, match=r"refused the DELETE request\nIt answered 405"):
            repository.delete_manifest(manifest.digest)
        assert repository.manifest("tag") == manifest


def test_a_mirror_is_read_and_refuses_a_push(tmp_path: Path, cache: Cache) -> None:
    with serve(tmp_path / "registry") as server:
        manifest = artifact_of(cache, b"layer")
        transfer_of(cache).push(manifest, repository_of(server.repository("main")), "tag")
    with (
        serve(tmp_path / "registry", read_only=True) as server,
        opened(tmp_path / "other") as other,
    ):
        repository = repository_of(server.repository("main"))
        assert transfer_of(other).pull(manifest.digest, repository) == manifest
        with pytest.raises(RegistryRefused, match="405"):
            transfer_of(other).push(artifact_of(other, b"more"), repository, "more")
        with pytest.raises(RegistryRefused, match="405"):
            repository.put_manifest(manifest, "again")


class Pages(Listener):
    """A registry of tags alone, in pages; `link` returns the header for the next page's number."""

    def __init__(self, tags: list[str], size: int, link: Callable[[int], str]) -> None:
        super().__init__()
        self.tags, self.size, self.link = tags, size, link

    def respond(self, exchange: Exchange) -> Answer:
        page = int(parse_qs(urlsplit(exchange.path).query).get("page", ["0"])[0])
        shown = self.tags[page * self.size : (page + 1) * self.size]
        headers = [("Link", self.link(page + 1))] if (page + 1) * self.size < len(self.tags) else []
        return Answer.of(200, headers, json.dumps({"name": "name", "tags": shown or None}).encode())


TAGS = [f"tag-{number}" for number in range(2_345)]


@pytest.mark.parametrize(
    "link",
    [
        lambda page: f'</v2/name/tags/list?page={page}>; rel="next"',
        lambda page: f"<tags/list?page={page}>; rel=next",
        lambda page: (
            f'<http://registry.internal:8080/v2/name/tags/list?page={page}&n=100>; rel="next"'
        ),
        lambda page: f"<?page={page}>;rel='next'",
    ],
    ids=["absolute", "relative", "inner-host", "query"],
)
def test_tags_come_in_many_pages(link: Callable[[int], str]) -> None:
    with Pages(TAGS, 100, link) as registry:
        assert repository_of(registry.repository("name")).tags() == TAGS
        assert len(registry.requests) == 24


def test_pages_that_lead_in_a_circle_are_an_error() -> None:
    with Pages(
        TAGS, 100, lambda page: f'</v2/name/tags/list?page={page % 3}>; rel="next"'
    ) as registry:
        with pytest.raises(RegistryCorrupt, match=r"The list of tags .* does not end"):
            repository_of(registry.repository("name")).tags()
        assert len(registry.requests) < 6
    with Pages([], 100, str) as registry:
        assert repository_of(registry.repository("name")).tags() == []


@pytest.mark.slow
def test_a_real_registry_lists_more_than_a_thousand_tags(servers: Servers, cache: Cache) -> None:
    repository = repository_of(servers.registry().repository(uuid.uuid4().hex))
    manifest = artifact_of(cache)
    transfer_of(cache).push(manifest, repository)
    names = [f"t{number}" for number in range(1_100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: repository.put_manifest(manifest, name), names))
    assert sorted(repository.tags()) == sorted(names)


def test_known_blobs_are_neither_asked_for_nor_sent_again(
    registry: Server, repository: str, cache: Cache
) -> None:
    """Known blobs are neither requested nor sent again.

    The second push of an artifact is its manifest alone, and one that shares most of its blobs
    sends the new ones.
    """
    path = repository.partition("/")[2]
    large = os.urandom(100_000)
    with FaultProxy(registry.url) as proxy:
        transfer = transfer_of(cache)
        transfer.push(
            artifact_of(cache, large, b"small"), repository_of(proxy.repository(path)), "one"
        )
        assert sorted(seen(proxy)) == sorted(
            ["HEAD blobs", *3 * ["POST uploads", "PUT uploads"], "PUT manifests"]
        )
        proxy.requests.clear()
        transfer.push(
            artifact_of(cache, large, b"small"), repository_of(proxy.repository(path)), "two"
        )
        assert seen(proxy) == ["PUT manifests"]
        proxy.requests.clear()
        transfer.push(
            artifact_of(cache, large, b"other"), repository_of(proxy.repository(path)), "three"
        )
        assert seen(proxy) == ["POST uploads", "PUT uploads", "PUT manifests"]
        proxy.requests.clear()
        transfer.push(
            artifact_of(cache, large), repository_of(proxy.repository(f"{path}/beside")), "mounted"
        )
        assert not [
            request for request in proxy.seen("PUT", "uploads") if request.length == len(large)
        ]
        ledger = Ledger(cache.database)
        assert ledger.holds(
            RepositoryName.parse(proxy.repository(f"{path}/beside")), Digest.of(large)
        )


def test_a_kept_connection_that_has_just_ended_is_made_anew(
    registry: Server, repository: str, cache: Cache
) -> None:
    """A kept connection that has just ended is opened anew at once, and the body is sent in full.

    It tells nothing about a registry that it ended an idle connection.
    """
    with FaultProxy(registry.url) as proxy:
        mine = repository_of(proxy.repository(repository.partition("/")[2]), patience=0)
        assert mine.manifest("tag") is None
        proxy.on("GET").closes()
        assert mine.manifest("tag") is None
        manifest = artifact_of(cache)
        upload(mine, cache, EMPTY_CONFIG)
        proxy.on("PUT", "/manifests/").closes()
        mine.put_manifest(manifest, "tag")
        proxy.on("GET", times=2).closes()
        with pytest.raises(RegistryUnreachable):
            mine.manifest("tag")
        assert mine.manifest("tag") == manifest


def test_credentials_of_one_registry_are_for_no_other(servers: Servers, registry: Server) -> None:
    log_in(servers.registry(password=True).host)
    with FaultProxy(registry.url) as proxy:
        proxy.on("GET").answers(401, {"WWW-Authenticate": 'Basic realm="any"'})
        with pytest.raises(RegistryDenied):
            repository_of(proxy.repository("main")).manifest("tag")
        assert [request.headers["Authorization"] for request in proxy.requests] == [None]


def test_credentials_are_found_where_docker_has_them(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = servers.registry(password=True)
    config = Path(os.environ["DOCKER_CONFIG"], "config.json")

    def works() -> bool:
        try:
            return repository_of(server.repository("main")).manifest("tag") is None
        except RegistryDenied:
            return False

    assert not works()
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", docker_config(server.host))
    assert works()
    monkeypatch.delenv("DOCKER_AUTH_CONFIG")
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": server.host, "Username": LOGIN[0], "Secret": LOGIN[1]})
    helper.write_text(
        f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {server.host} ] && echo \'{answer}\' ||'
        " exit 1\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    for content in (
        {"credHelpers": {server.host: "test"}},
        {"credsStore": "test"},
        {"auths": {server.host: {}}, "credsStore": "test"},
    ):
        config.write_text(json.dumps(content))
        assert works()
    helper.write_text("#!/bin/sh\necho 'hunter2secret is no JSON'\necho hunter2secret >&2\n")
    with pytest.raises(RegistryDenied) as raised:
        repository_of(server.repository("main")).manifest("tag")
    assert "hunter2" not in str(raised.value)
    config.write_text(json.dumps({"credHelpers": {server.host: "not-there"}}))
    assert not works()
    config.write_text("{")
    assert not works()
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(docker_config(server.host))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DOCKER_CONFIG")
    assert works()
