"""All kinds of repositories do what the protocol says: a directory, and registries with and without
logins, TLS and proxies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import EMPTY_CONFIG, Manifest, empty_config
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    RegistryCorrupt,
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from tests.support.caches import opened
from tests.support.clients import (
    LOGIN,
    WITH_TESTS,
    artifact_of,
    blob_of,
    docker_config,
    download,
    log_in,
    no_settings,  # noqa: F401
    repository_of,
    seen,
    transfer_of,
    upload,
)
from tests.support.faults import FaultProxy
from tests.support.files import flip
from tests.support.listening import Answer, Exchange, Listener
from tests.support.registries import ForwardProxy, Server, forward_proxy, serve

DATA = bytes(range(256)) * 4000
KINDS = ("folder", "plain", "password", "tokens", "tls", "tokens-tls", "proxy", "tls-proxy")


class Servers:
    """The servers that the tests of this file share, each started when it is first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, Server | ForwardProxy] = {}
        self.stack = ExitStack()

    def registry(self, **options: bool) -> Server:
        name = "-".join(sorted(options)) or "plain"
        if name not in self._started:
            login = LOGIN if options.get("token") or options.pop("password", False) else None
            self._started[name] = self.stack.enter_context(
                serve(self._folder / name, login=login, **options)
            )
        server = self._started[name]
        assert isinstance(server, Server)
        return server

    def proxy(self) -> ForwardProxy:
        if "proxy" not in self._started:
            self._started["proxy"] = self.stack.enter_context(
                forward_proxy(self._folder / "proxy", login=("bob", "proxyword"))
            )
        proxy = self._started["proxy"]
        assert isinstance(proxy, ForwardProxy)
        return proxy


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    with servers.stack:
        yield servers


@dataclass
class Place:
    """Where repositories of one kind are; every `repository` of the same path is the same one,
    newly opened.
    """

    kind: str
    base: str
    proxy: ForwardProxy | None = None

    def name(self, path: str = "main") -> RepositoryName:
        return RepositoryName.parse(f"{self.base}/{path}")

    def repository(self, path: str = "main", counters: Counters | None = None) -> Repository:
        return repository_of(self.name(path), counters)


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest,
    servers: Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    kind = str(request.param)
    if kind == "folder":
        return Place(kind, f"oci:{tmp_path}/layouts")
    options = {"password": "password" in kind, "token": "tokens" in kind, "tls": "tls" in kind}
    server = servers.registry(**{name: True for name, wanted in options.items() if wanted})
    if server.ca:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
    if options["password"] or options["token"]:
        log_in(server.host)
    proxy = servers.proxy() if "proxy" in kind else None
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY" if server.ca else "HTTP_PROXY", proxy.url)
    return Place(kind, f"{server.host}/{uuid.uuid4().hex}", proxy)


def test_manifests_are_found_by_tag_and_digest(place: Place, cache: Cache) -> None:
    repository = place.repository()
    manifest = artifact_of(cache, b"layer", title="it")
    assert (
        repository.manifest("one") is None
        and repository.manifest(manifest.digest) is None
        and repository.tags() == []
    )
    for blob in manifest.blobs():
        assert not repository.has(blob)
        upload(repository, cache, cache.blobs.read(blob.digest))
        assert repository.has(blob)
    repository.put_manifest(manifest, "one")
    repository.put_manifest(manifest, "two")
    repository.put_manifest(manifest)
    index = Manifest.of_manifests([manifest.descriptor], artifact_type="application/vnd.test.index")
    repository.put_manifest(index, "index")
    for reference, expected in (
        ("one", manifest),
        ("two", manifest),
        (manifest.digest, manifest),
        ("index", index),
        (index.digest, index),
    ):
        found = place.repository().manifest(reference)
        assert found == expected and found.digest == expected.digest
    assert sorted(repository.tags()) == ["index", "one", "two"]
    other = artifact_of(cache, b"layer", title="other")
    repository.put_manifest(other, "one")
    assert repository.manifest("one") == other and repository.manifest("two") == manifest


@pytest.mark.parametrize("data", [b"", b"\0", DATA], ids=["empty", "byte", "megabyte"])
def test_blobs_go_up_and_come_down_and_their_bytes_are_counted(
    place: Place, tmp_path: Path, data: bytes
) -> None:
    up: list[int] = []
    down: list[int] = []
    counters = Counters()
    repository = place.repository(counters=counters)
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        blob = upload(repository, one, data, up.append)
        assert download(repository, two, blob, down.append) == data
        assert sum(up) == sum(down) == len(data)
        with pytest.raises(BlobMissing):
            download(repository, two, blob_of(b"never there"))
    assert not repository.has(Descriptor(blob.media_type, blob.digest, len(data) + 1))
    if place.kind != "folder":
        assert counters.snapshot()["bytes_received"] == len(data)
        sent = counters.snapshot()["bytes_sent"]
        # The proxy may end a kept connection: all is sent again.
        assert sent == len(data) or (place.proxy and sent > len(data))


def test_a_manifest_that_names_what_is_not_there_is_not_kept(place: Place, cache: Cache) -> None:
    repository = place.repository()
    upload(repository, cache, EMPTY_CONFIG)
    with pytest.raises(BlobMissing, match=r"does not have"):
        repository.put_manifest(Manifest.of_layers(empty_config(), [blob_of(b"gone")]), "tag")
    with pytest.raises(BlobMissing):
        repository.put_manifest(
            Manifest.of_manifests([artifact_of(cache, b"gone").descriptor]), "tag"
        )
    assert repository.manifest("tag") is None and repository.tags() == []


def test_bytes_that_are_not_the_blob_are_not_kept(place: Place, tmp_path: Path) -> None:
    repository = place.repository()
    blob = blob_of(b"right")
    for wrong in (b"wrong", b"too long", b"no"):
        (tmp_path / "blob").write_bytes(wrong)
        moved: list[int] = []
        with pytest.raises((RegistryRefused, BlobCorrupt)):
            repository.upload(blob, lambda: (tmp_path / "blob").open("rb"), moved.append)
        assert not repository.has(blob)


def test_a_manifest_is_deleted_with_its_tags_and_nothing_else(place: Place, cache: Cache) -> None:
    repository = place.repository()
    artifact = artifact_of(cache, b"layer")
    transfer_of(cache).push(artifact, repository, "artifact")
    records = [
        Manifest.of_manifests([artifact.descriptor], annotations={"name": name}) for name in "ab"
    ]
    for record, tags in zip(records, (["a", "also-a"], ["b"]), strict=True):
        for tag in tags:
            repository.put_manifest(record, tag)
    repository.delete_manifest(records[0].digest)
    repository.delete_manifest(records[0].digest)
    again = place.repository()
    assert (
        again.manifest("a") is None
        and again.manifest("also-a") is None
        and again.manifest(records[0].digest) is None
    )
    assert again.manifest("b") == records[1] and again.manifest("artifact") == artifact
    assert sorted(again.tags()) == ["artifact", "b"]
    assert download(again, cache, artifact.layers[0]) == b"layer"


def test_many_threads_use_one_repository(place: Place, tmp_path: Path) -> None:
    """Its very first use, too: with tokens and TLS found out by all of them at once."""
    repository = place.repository()

    def work(number: int) -> None:
        with opened(tmp_path / f"cache{number}") as cache:
            manifest = artifact_of(cache, os.urandom(70_000), b"of all", str(number).encode())
            transfer_of(cache).push(manifest, repository, f"tag{number}")
            assert repository.manifest(f"tag{number}") == manifest
        with opened(tmp_path / f"other{number}") as cache:
            assert transfer_of(cache).pull(manifest.digest, repository) == manifest
            assert all(cache.blobs.verify(blob.digest) for blob in manifest.blobs())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert sorted(repository.tags()) == sorted(f"tag{number}" for number in range(16))


def test_a_blob_of_another_repository_is_mounted_and_not_sent(place: Place, cache: Cache) -> None:
    blob = upload(place.repository("one"), cache, DATA)
    opens, moved, counters = 0, list[int](), Counters()

    def source() -> BinaryIO:
        nonlocal opens
        opens += 1
        return cache.blobs.open(blob.digest)

    other = place.repository("two", counters)
    assert not other.has(blob)
    other.upload(blob, source, moved.append, place.name("one"))
    assert place.repository("two").has(blob) and sum(moved) == blob.size
    if place.kind != "folder":
        assert opens == 0 and counters.snapshot()["bytes_sent"] == 0
    other.upload(blob_of(b"new"), lambda: _stream(cache, b"new"), moved.append, place.name("one"))
    assert download(place.repository("two"), cache, blob_of(b"new")) == b"new"


def _stream(cache: Cache, data: bytes) -> BinaryIO:
    return cache.blobs.open(cache.blobs.put(data))


def test_an_artifact_is_pushed_and_pulled_with_its_progress(place: Place, tmp_path: Path) -> None:
    up: list[tuple[int, int]] = []
    down: list[tuple[int, int]] = []
    layers = [os.urandom(size) for size in (3_000_000, 200_000, 70_000, 10)]
    repository = place.repository()
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        manifest = artifact_of(one, *layers)
        transfer_of(one, lambda *step: up.append(step)).push(manifest, repository, "tag")
        transfer_of(two, lambda *step: down.append(step)).pull(manifest.digest, repository)
        assert [two.blobs.read(blob.digest) for blob in manifest.layers] == layers
        assert Manifest.parse(two.blobs.read(manifest.digest)) == manifest
        total = sum(map(len, layers)) + len(EMPTY_CONFIG)
        for steps in (up, down):
            assert steps[-1] == (total, total) and all(
                0 <= step[0] <= step[1] == total for step in steps
            )
        again: list[tuple[int, int]] = []
        transfer_of(two, lambda *step: again.append(step)).pull(manifest.digest, repository)
        assert again == []
        with pytest.raises(BlobMissing):
            transfer_of(two).pull(Digest.of(b"unknown"), repository)


def test_a_corrupt_blob_on_this_machine_is_not_sent_and_goes_to_quarantine(
    place: Place, cache: Cache
) -> None:
    manifest = artifact_of(cache, DATA)
    flip(cache.blobs.path(Digest.of(DATA)))
    repository = place.repository()
    with pytest.raises(BlobCorrupt):
        transfer_of(cache).push(manifest, repository, "tag")
    assert (
        repository.manifest("tag") is None
        and not repository.has(blob_of(DATA))
        and not cache.blobs.has(Digest.of(DATA))
    )


def test_a_large_blob_needs_little_memory(place: Place, tmp_path: Path) -> None:
    """40 MB up and down again, in a process that grows by less than 25 MB meanwhile."""
    code = """
import os, resource, sys
from flyte_build.cas.registry.descriptor import Descriptor
from tests.support.clients import repository_of
from tests.support.caches import opened

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "linux" else 1024)

repository = repository_of(sys.argv[1])
with opened(sys.argv[2] + "/one") as one, opened(sys.argv[2] + "/two") as two:
    with one.blobs.batch() as batch, batch.writer() as writer:
        for _ in range(40):
            writer.write(os.urandom(1 << 20))
        digest = writer.finish()
    blob = Descriptor("application/octet-stream", digest, 40 << 20)
    repository.has(blob)
    before = peak()
    repository.upload(blob, lambda: one.blobs.open(digest), lambda count: None)
    with two.blobs.batch() as batch, batch.writer() as writer:
        repository.download(blob, writer, lambda count: None)
        writer.finish()
    assert two.blobs.verify(digest)
    assert peak() - before < 25_000, peak() - before
"""
    command = [sys.executable, "-P", "-c", WITH_TESTS + code, place.name().text, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
    with pytest.raises(RegistryUnreachable, match="cannot be trusted") as raised:
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
    """A host on this machine that speaks TLS is found out; one that was named with http is asked in
    the clear alone.
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
        with pytest.raises(RegistryRefused, match=r"refuses DELETE\nIt answered 405"):
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
    """A registry of tags alone, which come in pages; `link` makes the header from the number of the
    next page.
    """

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
        with pytest.raises(RegistryCorrupt, match="no end of tags"):
            repository_of(registry.repository("name")).tags()
        assert len(registry.requests) < 6
    with Pages([], 100, str) as registry:
        assert repository_of(registry.repository("name")).tags() == []


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
    """The second push of an artifact is its manifest alone; one that shares most of it sends what
    is new.
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
    """At once, and with all of a body: it says nothing of the registry that it ended a connection
    that nobody used.
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
