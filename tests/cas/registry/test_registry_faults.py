"""Faults of a registry, the network or a stranger: commands survive them.

Nothing is believed that was not requested.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.descriptor import MANIFESTS, Descriptor
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName, redacted
from flyte_build.cas.registry.published_record import (
    CREATED,
    INPUTS,
    KEY,
    KIND,
    PROJECT,
    TYPE,
    PublishedRecord,
)
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.errors import (
    BlobMissing,
    ReferenceInvalid,
    RegistryCorrupt,
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
    StoreError,
)
from tests.support.caches import opened
from tests.support.clients import (
    artifact_of,
    download,
    no_settings,  # noqa: F401
    repository_of,
    transfer_of,
    upload,
)
from tests.support.faults import FaultProxy, When
from tests.support.listening import Recorder
from tests.support.registries import Server, serve

DATA = os.urandom(3_000_000)
ALWAYS: Any = {"times": inf}
JSON = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def proxy(registry: Server) -> Iterator[FaultProxy]:
    with FaultProxy(registry.url) as proxy:
        yield proxy


@pytest.fixture
def path() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def kept(registry: Server, path: str, cache: Cache) -> Manifest:
    """An artifact of `DATA` under the tag "tag", pushed without the proxy."""
    manifest = artifact_of(cache, DATA)
    transfer_of(cache).push(manifest, repository_of(registry.repository(path)), "tag")
    return manifest


OPERATIONS: dict[str, tuple[str, Callable[[Repository, Cache, Manifest], Any]]] = {
    "look-up": ("GET", lambda repository, cache, kept: repository.manifest("tag") == kept),
    "manifest": ("GET", lambda repository, cache, kept: repository.manifest(kept.digest) == kept),
    "has": ("HEAD", lambda repository, cache, kept: repository.has(kept.layers[0])),
    "download": (
        "GET",
        lambda repository, cache, kept: download(repository, cache, kept.layers[0]) == DATA,
    ),
    "tags": ("GET", lambda repository, cache, kept: repository.tags() == ["tag"]),
    "start": (
        "POST",
        lambda repository, cache, kept: repository.has(upload(repository, cache, b"new")),
    ),
    "upload": (
        "PUT",
        lambda repository, cache, kept: repository.has(upload(repository, cache, b"new")),
    ),
    "put": ("PUT", lambda repository, cache, kept: repository.put_manifest(kept, "more") is None),
    "delete": (
        "DELETE",
        lambda repository, cache, kept: repository.delete_manifest(kept.digest) is None,
    ),
}


@pytest.fixture(params=OPERATIONS)
def operation(
    request: pytest.FixtureRequest,
) -> tuple[str, Callable[[Repository, Cache, Manifest], Any]]:
    return OPERATIONS[request.param]


FAULTS: dict[str, Callable[[When], None]] = {
    "408": lambda on: on.answers(408),
    "429": lambda on: on.answers(429, {"Retry-After": "0"}),
    "429-date": lambda on: on.answers(429, {"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}),
    "429-nonsense": lambda on: on.answers(429, {"Retry-After": "soon"}),
    "500": lambda on: on.answers(500, body=b"<html>\x1b[31m"),
    "502": lambda on: on.answers(502),
    "503": lambda on: on.answers(503, body=b'{"errors": [{"code": "UNAVAILABLE"}]}'),
    "504": lambda on: on.answers(504),
    "closed": lambda on: on.closes(),
    "answer-lost": lambda on: on.loses_answer(),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_tried_again(
    proxy: FaultProxy,
    path: str,
    kept: Manifest,
    tmp_path: Path,
    operation: tuple[str, Any],
    fault: str,
) -> None:
    method, act = operation
    repository = repository_of(proxy.repository(path))
    FAULTS[fault](proxy.on(method))
    with opened(tmp_path / "other") as other:
        assert act(repository, other, kept)
    assert len(proxy.seen(method)) >= 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RegistryRefused),
        (403, RegistryDenied),
        (405, RegistryRefused),
        (413, RegistryRefused),
        (418, RegistryRefused),
    ],
)
def test_what_is_refused_is_not_tried_again(
    proxy: FaultProxy,
    path: str,
    kept: Manifest,
    tmp_path: Path,
    operation: tuple[str, Any],
    status: int,
    error: type[Exception],
) -> None:
    method, act = operation
    typed = {"Content-Type": "application/json; charset=utf-8"}
    proxy.on(method, **ALWAYS).answers(
        status, typed, b'{"errors": [{"code": "WHY", "message": "said\\u001b[31m so"}]}'
    )
    with opened(tmp_path / "other") as other, pytest.raises(error) as raised:
        act(repository_of(proxy.repository(path)), other, kept)
    assert len(proxy.seen(method)) == 1
    if method != "HEAD":
        assert raised.value.why == f"It answered {status} (WHY: said[31m so)."  # type: ignore[attr-defined]  # All of ours have it.


@pytest.mark.slow
def test_a_registry_that_never_answers_is_given_up_soon(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path, operation: tuple[str, Any]
) -> None:
    """A registry that never answers is given up soon, whatever the first request is.

    There is no minute of waiting for a registry that has never answered.
    """
    _, act = operation
    with opened(tmp_path / "other") as other:
        proxy.on(".*", **ALWAYS).stalls(600)
        with pytest.raises(RegistryUnreachable, match="does not respond"):
            act(repository_of(proxy.repository(path), patience=0.5), other, kept)
        assert len(proxy.requests) == 1
        with proxy.down(), pytest.raises(RegistryUnreachable, match="cannot be reached"):
            act(repository_of(proxy.repository(path), patience=0.5), other, kept)


def test_errors_of_the_server_are_no_answer(
    proxy: FaultProxy, path: str, kept: Manifest, cache: Cache
) -> None:
    """A registry that only answers with errors gets no more time than a silent one."""
    proxy.on(".*", **ALWAYS).answers(500)
    with pytest.raises(RegistryUnreachable, match="500"):
        repository_of(proxy.repository(path), patience=0).has(kept.layers[0])
    assert len(proxy.requests) == 1


def test_why_there_is_no_answer_is_said_in_plain_words(proxy: FaultProxy, path: str) -> None:
    def why(place: str, patience: float) -> str:
        with pytest.raises(RegistryUnreachable) as raised:
            repository_of(place, patience=patience).manifest("tag")
        return f"{raised.value.what}: {raised.value.why}".replace(place, "PLACE")

    proxy.on("GET").stalls(600)
    assert (
        why(proxy.repository(path), 0.5)
        == "PLACE does not respond: There was no response within 1 s."
    )
    proxy.on("GET", times=2).closes()
    assert (
        why(proxy.repository(path), 0)
        == "PLACE cannot be reached: The other side closed the connection."
    )
    with proxy.down():
        assert (
            why(proxy.repository(path), 0)
            == "PLACE cannot be reached: Failed to establish a new connection: Connection refused."
        )
    assert why("nowhere.invalid/x", 0).startswith(
        "PLACE cannot be reached: Failed to resolve 'nowhere.invalid'"
    )


@pytest.mark.slow
def test_look_ups_share_their_patience(proxy: FaultProxy, path: str) -> None:
    """All repositories of a command share one retry budget: if one uses it up, none is left."""
    patience = RetryBudget(1.5)
    proxy.on("GET", **ALWAYS).stalls(600)
    for name in ("one", "two", "three"):
        with pytest.raises(RegistryUnreachable):
            open_repository(
                RepositoryName.parse(proxy.repository(f"{path}/{name}")), Counters(), patience
            ).manifest("tag")
    assert len(proxy.requests) == 3


@pytest.mark.parametrize(
    "after",
    ["3600", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)],
    ids=["seconds", "date"],
)
def test_a_registry_that_wants_to_be_left_alone_for_long_is_left_alone(
    proxy: FaultProxy, path: str, kept: Manifest, after: str
) -> None:
    proxy.on("GET", **ALWAYS).answers(429, {"Retry-After": after})
    for reference in ("tag", kept.digest):
        with pytest.raises(RegistryUnreachable, match="429"):
            repository_of(proxy.repository(path)).manifest(reference)
    assert len(proxy.requests) == 2


def test_no_request_is_made_before_the_time_that_the_registry_names(
    proxy: FaultProxy, path: str, kept: Manifest
) -> None:
    times: list[float] = []
    proxy.on("GET").answers(429, {"Retry-After": "1"}, body=iter([b""]))
    proxy.on("GET").calls(lambda: times.append(time.monotonic()))
    began = time.monotonic()
    assert repository_of(proxy.repository(path)).manifest("tag") == kept
    assert times[0] - began >= 1


def test_a_look_up_ends_however_long_a_registry_fails(proxy: FaultProxy, path: str) -> None:
    proxy.on("GET", **ALWAYS).answers(503)
    with pytest.raises(RegistryUnreachable, match="503"):
        repository_of(proxy.repository(path)).manifest("tag")
    assert 2 <= len(proxy.requests) <= 6


# Downloads that break off.


def ranges(proxy: FaultProxy) -> list[str | None]:
    return [request.headers["Range"] for request in proxy.seen("GET", "/blobs/")]


def pull(proxy: FaultProxy, path: str, kept: Manifest, folder: Path, patience: float = 5.0) -> int:
    """Download `DATA`, and return the number of bytes that its progress added up to."""
    moved: list[int] = []
    with opened(folder / uuid.uuid4().hex) as other:
        assert (
            download(
                repository_of(proxy.repository(path), patience=patience),
                other,
                kept.layers[0],
                moved.append,
            )
            == DATA
        )
    return sum(moved)


def test_a_download_goes_on_where_it_broke_off(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path
) -> None:
    proxy.on("GET").end_after(1_000_000)
    proxy.on("GET").end_after(1_500_000)
    assert pull(proxy, path, kept, tmp_path) == len(DATA)
    assert ranges(proxy) == [None, "bytes=1000000-", "bytes=2500000-"]


@pytest.mark.slow
def test_a_download_goes_on_after_resets_as_long_as_bytes_come(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path
) -> None:
    """A download goes on after resets as long as bytes come.

    There may be more resets than retries of one failure. After a reset, a few bytes that were on
    their way are fetched twice.
    """
    for _ in range(14):
        proxy.on("GET").end_after(200_000)
    assert pull(proxy, path, kept, tmp_path) == len(DATA)
    assert ranges(proxy)[1:] == [f"bytes={200_000 * number}-" for number in range(1, 15)]
    proxy.on("GET").reset_after(2_900_000)
    assert pull(proxy, path, kept, tmp_path) == len(DATA)


def test_a_download_that_stalls_goes_on(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path
) -> None:
    proxy.on("GET").stalls(600, after=1_000_000)
    assert pull(proxy, path, kept, tmp_path, patience=1) == len(DATA)
    assert ranges(proxy) == [None, "bytes=1000000-"]


@pytest.mark.parametrize(
    "fault",
    [
        lambda on: on.answers(416),
        lambda on: on.answers(200, body=DATA),
        lambda on: on.headers({"Content-Range": "bytes 0-1999999/3000000"}),
        lambda on: on.headers({"Content-Range": None}),
    ],
    ids=["416", "whole", "other-range", "no-range"],
)
def test_a_registry_that_does_not_continue_is_asked_for_all(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path, fault: Callable[[When], None]
) -> None:
    proxy.on("GET").end_after(1_000_000)
    fault(proxy.on("GET"))
    assert pull(proxy, path, kept, tmp_path) == len(DATA)
    assert ranges(proxy)[:2] == [None, "bytes=1000000-"] and set(ranges(proxy)[2:]) <= {None}


def test_a_body_that_is_short_without_saying_so_is_completed(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path
) -> None:
    proxy.on("GET").replaces(lambda body: body[:-7])
    proxy.on("GET").headers({"Content-Length": None})
    assert pull(proxy, path, kept, tmp_path) == len(DATA)
    assert ranges(proxy) == [None, f"bytes={len(DATA) - 7}-"]


def test_a_blob_that_is_too_short_in_the_registry_is_said_to_be(
    tmp_path: Path, cache: Cache
) -> None:
    with serve(tmp_path / "registry") as server, opened(tmp_path / "other") as other:
        manifest = artifact_of(cache, DATA)
        repository = repository_of(server.repository("main"))
        transfer_of(cache).push(manifest, repository, "tag")
        os.truncate(server.blob(str(Digest.of(DATA))), 1_000_000)
        with pytest.raises(RegistryCorrupt, match="has the wrong bytes for") as raised:
            transfer_of(other).pull(manifest.digest, repository)
        assert raised.value.why == "There are 1,000,000 of them instead of 3,000,000."


# Uploads that break off.


@pytest.mark.parametrize(
    "fault",
    [
        lambda proxy: proxy.on("PUT").cut_request_after(1_000_000),
        lambda proxy: proxy.on("PUT").closes(),
        lambda proxy: proxy.on("PUT").loses_answer(),
        lambda proxy: proxy.on("PUT").answers(
            404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'
        ),
        lambda proxy: proxy.on("PUT").answers(409),
        lambda proxy: proxy.on("PUT").answers(416),
        lambda proxy: proxy.on("PUT").answers(500),
        lambda proxy: proxy.on("POST").closes(),
    ],
    ids=["cut", "closed", "lost", "404", "409", "416", "500", "start"],
)
def test_an_upload_begins_anew(
    proxy: FaultProxy, path: str, cache: Cache, fault: Callable[[FaultProxy], None]
) -> None:
    fault(proxy)
    moved: list[int] = []
    repository = repository_of(proxy.repository(path))
    blob = upload(repository, cache, DATA, moved.append)
    assert sum(moved) == len(DATA) and repository.has(blob)


def test_places_of_uploads_may_be_relative_have_a_query_or_be_elsewhere(
    proxy: FaultProxy, path: str, cache: Cache
) -> None:
    repository = repository_of(proxy.repository(path))
    proxy.on("POST").headers({"Location": lambda url: url.removeprefix(proxy.url)})
    assert repository.has(upload(repository, cache, b"below the host"))
    proxy.on("POST").headers({"Location": lambda url: url.rpartition("/")[2]})
    assert repository.has(upload(repository, cache, b"below the place"))
    proxy.on("POST").answers(202, {"Location": "/put/here"})
    proxy.on("PUT", "/put/here").answers(201)
    blob = upload(repository, cache, b"without a query")
    assert proxy.seen("PUT", "/put/here")[0].path == f"/put/here?digest=sha256%3A{blob.digest.hex}"
    with Recorder() as elsewhere:
        proxy.on("POST").answers(202, {"Location": f"{elsewhere.url}/bucket?signature=1"})
        upload(repository, cache, b"elsewhere")
        assert [(each.method, each.length) for each in elsewhere.requests] == [
            ("PUT", len(b"elsewhere"))
        ]
        assert elsewhere.requests[0].path.startswith("/bucket?signature=1&digest=")


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "http://[::1",
        "http://host:99999/",
        "file:///etc/passwd",
        "http:///x",
        "ftp://host/",
        "http://a b/",
        "http://\xe9.\xff/",
    ],
)
def test_a_place_that_is_none_is_refused(
    proxy: FaultProxy, path: str, kept: Manifest, cache: Cache, place: str
) -> None:
    repository = repository_of(proxy.repository(path), patience=0)
    proxy.on("POST", **ALWAYS).answers(202, {"Location": place})
    with pytest.raises(RegistryError):
        upload(repository, cache, b"data")
    proxy.on("GET", **ALWAYS).answers(307, {"Location": place})
    with pytest.raises(RegistryError):
        repository.manifest("tag")


def test_a_mount_that_is_not_made_is_an_upload(
    proxy: FaultProxy, path: str, kept: Manifest, cache: Cache
) -> None:
    blob = kept.layers[0]
    for number, mount in enumerate((f"{path}/empty", path, path, path)):
        if number:
            proxy.on("POST", "mount=").answers({1: 405, 2: 403, 3: 404}[number])
        repository = repository_of(proxy.repository(f"{path}/{number}"))
        moved: list[int] = []
        repository.upload(
            blob,
            lambda: cache.blobs.open(blob.digest),
            moved.append,
            RepositoryName.parse(proxy.repository(mount)),
        )
        assert repository.has(blob) and sum(moved) == len(DATA)


def test_a_blob_that_was_collected_meanwhile_is_sent_again(tmp_path: Path, cache: Cache) -> None:
    """A blob that the registry has collected meanwhile is sent again.

    That holds even if the ledger lists it, or the registry still claims to have it.
    """
    with serve(tmp_path / "registry") as server, FaultProxy(server.url) as proxy:
        repository = repository_of(proxy.repository("main"))
        manifest = artifact_of(cache, DATA)
        proxy.on("PUT", "/manifests/").calls(server.blob(str(Digest.of(DATA))).unlink)
        transfer_of(cache).push(manifest, repository, "one")
        server.blob(str(Digest.of(DATA))).unlink()
        transfer_of(cache).push(manifest, repository, "two")
        server.blob(str(Digest.of(DATA))).unlink()
        Ledger(cache.database).forget(repository.name)
        proxy.on("HEAD", **ALWAYS).answers(200, {"Content-Length": str(len(DATA))}, body=())
        transfer_of(cache).push(manifest, repository, "three")
        with opened(tmp_path / "other") as other:
            assert (
                transfer_of(other).pull(manifest.digest, repository_of(server.repository("main")))
                == manifest
            )
        proxy.on("PUT", "/manifests/", **ALWAYS).answers(404)
        with pytest.raises(RegistryRefused, match="does not keep uploaded blobs"):
            transfer_of(cache).push(manifest, repository, "four")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_a_refusal_keeps_its_reason(
    proxy: FaultProxy, path: str, kept: Manifest, kind: str
) -> None:
    """A refusal keeps its reason, whatever its content type, so missing blobs are recognised.

    That holds even if the refusal could have been a request for TLS.
    """
    body = b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "gone"}]}'
    proxy.on("PUT").answers(400, {"Content-Type": kind} if kind else {}, body)
    with pytest.raises(BlobMissing) as raised:
        repository_of(proxy.repository(path)).put_manifest(kept, "more")
    assert raised.value.why == "It answered 400 (MANIFEST_BLOB_UNKNOWN: gone)."


def test_a_repository_that_the_registry_has_lost_is_sent_again(
    tmp_path: Path, cache: Cache
) -> None:
    """A repository that the registry has lost is sent again in full, in spite of the ledger."""
    with serve(tmp_path / "registry") as server:
        repository = repository_of(server.repository("main"))
        manifest = artifact_of(cache, DATA)
        transfer_of(cache).push(manifest, repository, "one")
        shutil.rmtree(server.folder / "docker/registry/v2/repositories/main")
        transfer_of(cache).push(manifest, repository, "two")
        with opened(tmp_path / "other") as other:
            assert (
                transfer_of(other).pull(manifest.digest, repository_of(server.repository("main")))
                == manifest
            )


# What comes is not what was asked for.


def test_what_is_no_registry_is_named(proxy: FaultProxy, path: str) -> None:
    page = {"Content-Type": "text/html"}
    asking: tuple[tuple[int, Callable[[Repository], object]], ...] = (
        (200, lambda it: it.manifest("tag")),
        (200, lambda it: it.tags()),
        (404, lambda it: it.tags()),
    )
    for status, ask in asking:
        proxy.on("GET").answers(status, page, b"<html>")
        with pytest.raises(
            RegistryCorrupt, match=f"{proxy.host} does not respond like a registry"
        ) as raised:
            ask(repository_of(proxy.repository(path)))
        assert f"It answered {status} with text/html" in raised.value.why
    proxy.on("GET").answers(404, page, b"<html>")
    assert repository_of(proxy.repository(path)).manifest("tag") is None
    proxy.on("GET").answers(404, {"Docker-Distribution-Api-Version": "registry/2.0"})
    assert repository_of(proxy.repository(path)).tags() == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b"[]",
        b'{"manifests": []}',
        b'{"manifests": [{}]}',
        b'{"manifests": [{"digest": 1, "size": 1}]}',
    ],
)
def test_errors_are_said_in_words(proxy: FaultProxy, path: str, body: bytes) -> None:
    """Errors are worded for users, and not in Python's terms."""
    proxy.on("GET").answers(200, body=body)
    with pytest.raises(RegistryCorrupt) as raised:
        manifest = repository_of(proxy.repository(path)).manifest("tag")
        assert manifest is not None
        PublishedRecord.parse(manifest)
    assert not re.search(r"Error|Expecting|None|object has|line \d", str(raised.value)), str(
        raised.value
    )


@pytest.mark.parametrize(
    "change", [{KEY: "a"}, {CREATED: "soon"}, {INPUTS: "{"}, {INPUTS: "[]"}, {KIND: None}]
)
def test_a_record_that_is_none_says_why(change: dict[str, str | None]) -> None:
    texts = {
        KEY: ZERO,
        KIND: "bundle",
        PROJECT: "p",
        INPUTS: "{}",
        CREATED: "2026-01-01T00:00:00+00:00",
    }
    artifact = Descriptor(JSON, Digest.of(b""), 0)
    assert (
        PublishedRecord.parse(
            Manifest.of_manifests([artifact], artifact_type=TYPE, annotations=texts)
        ).kind
        == "bundle"
    )
    changed = {name: text for name, text in {**texts, **change}.items() if text is not None}
    with pytest.raises(RegistryCorrupt, match="is not a record") as raised:
        PublishedRecord.parse(
            Manifest.of_manifests([artifact], artifact_type=TYPE, annotations=changed)
        )
    assert next(iter(change)) in raised.value.why and "Error" not in raised.value.why


@pytest.mark.parametrize(
    "fault",
    [
        lambda on: on.flips(20),
        lambda on: on.appends(b" "),
        lambda on: on.replaces(b"{}"),
        lambda on: on.replaces(b""),
        lambda on: on.headers({"Docker-Content-Digest": str(Digest.of(b"other"))}),
        lambda on: on.headers({"Docker-Content-Digest": "sha512:" + "0" * 128}),
        lambda on: on.headers({"Docker-Content-Digest": "md5:" + "0" * 10_000}),
    ],
    ids=["flip", "more", "other", "nothing", "digest", "algorithm", "long"],
)
def test_a_manifest_that_is_not_what_its_digest_says_is_refused(
    proxy: FaultProxy, path: str, kept: Manifest, fault: Callable[[When], None]
) -> None:
    repository = repository_of(proxy.repository(path))
    for reference in ("tag", kept.digest):
        fault(proxy.on("GET"))
        with pytest.raises(RegistryCorrupt) as raised:
            repository.manifest(reference)
        assert len(str(raised.value)) < 1000
        proxy.on("GET").headers({"Docker-Content-Digest": None})
        assert repository.manifest(reference) == kept


ZERO = "sha256:" + "0" * 64
NO_MANIFESTS = {
    "endless": repeat(b" " * 65536),
    "endless-text": chain([b'{"a": "'], repeat(b"a" * 65536)),
    "large": b" " * (4 << 20) + b"{}",
    "deep": b"[" * 1_000_000,
    "deep-object": b'{"a":' * 500_000,
    "latin": b'{"mediaType": "\xff"}',
    "utf-16": "{}".encode("utf-16"),
    "twice": b'{"config": {}, "config": {}}',
    "list": b"[]",
    "null": b"null",
    "number": b"1" * 10_000,
    "html": b"<html>",
    "kind": b'{"mediaType": "text/plain"}',
    "kind-list": b'{"mediaType": []}',
    "both": b'{"config": {}, "layers": [], "manifests": []}',
    "signed": (
        json.dumps(
            {
                "schemaVersion": 1,
                "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws",
            }
        ).encode()
    ),
}


@pytest.mark.parametrize("body", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_what_is_no_manifest_is_an_error(proxy: FaultProxy, path: str, body: Any) -> None:
    proxy.on("GET").answers(200, {"Content-Type": JSON}, body)
    with pytest.raises(RegistryCorrupt):
        repository_of(proxy.repository(path)).manifest("tag")


@pytest.mark.parametrize(
    "layer",
    [
        {"mediaType": "a", "digest": "sha512:" + "0" * 128, "size": 1},
        {"mediaType": "a", "digest": "@sha256:", "size": 1},
        {"mediaType": "a", "digest": ZERO[:-1], "size": 1},
        {"mediaType": "a", "digest": ZERO.upper(), "size": 1},
        {"mediaType": "a", "digest": f"{ZERO}\n", "size": 1},
        {"mediaType": "a", "digest": f"{ZERO[:-3]}/..", "size": 1},
        {"mediaType": "a", "digest": 1, "size": 1},
        {"mediaType": "a", "digest": ZERO, "size": -1},
        {"mediaType": "a", "digest": ZERO, "size": 1.0},
        {"mediaType": "a", "digest": ZERO, "size": True},
        {"mediaType": "a", "digest": ZERO, "size": "1"},
        {"mediaType": "a", "digest": ZERO},
        {"mediaType": None, "digest": ZERO, "size": 1},
        {"mediaType": "a", "digest": ZERO, "size": 1, "annotations": [1]},
        {"mediaType": "a", "digest": ZERO, "size": 1, "annotations": {"a": 1}},
        {"mediaType": "a", "digest": ZERO, "size": 1, "artifactType": {}},
        [],
        "text",
        None,
    ],
)
def test_a_descriptor_that_is_none_is_an_error(layer: Any) -> None:
    with pytest.raises(RegistryCorrupt):
        Descriptor.parse(layer)
    with pytest.raises(RegistryCorrupt):
        Manifest.parse(json.dumps({"config": layer, "layers": [layer]}).encode()).blobs()


@pytest.mark.parametrize(
    "fault",
    [
        lambda on: on.flips(2_999_999),
        lambda on: on.appends(b"x"),
        lambda on: on.answers(200, body=repeat(DATA)),
        lambda on: on.answers(200, body=DATA[:-1] + b"\0\0"),
        lambda on: on.replaces(bytes(len(DATA))),
    ],
    ids=["flip", "more", "endless", "longer", "other"],
)
def test_a_blob_that_is_not_what_its_digest_says_is_not_kept(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path, fault: Callable[[When], None]
) -> None:
    fault(proxy.on("GET", kept.layers[0].digest))
    with opened(tmp_path / "other") as other:
        with pytest.raises(RegistryCorrupt):
            transfer_of(other).pull(kept.digest, repository_of(proxy.repository(path)))
        assert (
            not other.blobs.has(kept.layers[0].digest)
            and not other.blobs.has(kept.digest)
            and not list(other.blobs.litter())
        )
        assert transfer_of(other).pull(kept.digest, repository_of(proxy.repository(path))) == kept


def test_a_blob_that_is_gone_after_it_was_seen_is_missing(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path
) -> None:
    repository = repository_of(proxy.repository(path))
    assert repository.has(kept.layers[0])
    proxy.on("GET", "/blobs/", **ALWAYS).answers(404)
    with (
        opened(tmp_path / "other") as other,
        pytest.raises(StoreError, match="does not have sha256:"),
    ):
        transfer_of(other).pull(kept.digest, repository)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"tags": 1}',
        b'{"name": "x"}',
        b"[" * 100_000,
        b"\xff",
        repeat(b" " * (1 << 20)),
    ],
)
def test_tags_that_are_none_are_an_error(proxy: FaultProxy, path: str, body: Any) -> None:
    proxy.on("GET").answers(200, body=body)
    with pytest.raises(RegistryCorrupt):
        repository_of(proxy.repository(path)).tags()


@pytest.mark.slow
def test_an_answer_without_end_is_not_read_to_its_end(
    proxy: FaultProxy, path: str, kept: Manifest, tmp_path: Path
) -> None:
    """An endless answer is not read to its end if only the status counts.

    Examples are a redirect, a refusal, a request for credentials and the answer to an upload.
    """
    endless = repeat(b" " * 65536)
    repository = repository_of(proxy.repository(path))
    proxy.on("GET").answers(307, {"Location": f"{proxy.url}/v2/{path}/manifests/tag"}, endless)
    assert repository.manifest("tag") == kept
    for status in (401, 403, 500, 400):
        proxy.on("GET", times=6).answers(status, {"WWW-Authenticate": 'Basic realm="x"'}, endless)
        with pytest.raises(RegistryError):
            repository_of(proxy.repository(path)).manifest("tag")
        proxy.clear()
    with opened(tmp_path / "other") as other:
        proxy.on("POST").answers(202, {"Location": "/there"}, endless)
        proxy.on("PUT").answers(201, {}, endless)
        upload(repository, other, b"data")


# Parsers meet anything.

TEXTS = st.text(st.characters(), max_size=30)  # With lone surrogates, too.
JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.sampled_from([ZERO, *MANIFESTS]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "mediaType",
                    "digest",
                    "size",
                    "config",
                    "layers",
                    "manifests",
                    "annotations",
                    "artifactType",
                    "schemaVersion",
                ]
            )
            | TEXTS,
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


def read_all(manifest: Manifest) -> None:
    """Read everything that a manifest has."""
    for ask in (
        lambda: manifest.descriptor.document(),
        lambda: manifest.annotations,
        lambda: manifest.blobs(),
        lambda: manifest.manifests,
        lambda: manifest.config,
        lambda: manifest.layers,
        lambda: Manifest.of_manifests([manifest.descriptor], annotations=manifest.annotations),
    ):
        try:
            ask()
        except RegistryCorrupt as error:
            str(error).encode()


@given(st.binary(max_size=200) | JSONS.map(lambda value: json.dumps(value).encode()))
@example(b'{"size": NaN}')
@example(b"\xef\xbb\xbf{}")
@example(b'{"mediaType": "\\ud800"}')
def test_bytes_are_a_manifest_or_an_error(data: bytes) -> None:
    try:
        manifest = Manifest.parse(data)
    except RegistryCorrupt as error:
        str(error).encode()
        return
    assert manifest.data == data
    read_all(manifest)


@given(JSONS)
def test_values_are_a_descriptor_or_an_error(value: Any) -> None:
    try:
        found = Descriptor.parse(value)
    except RegistryCorrupt as error:
        str(error).encode()
        return
    assert Descriptor.parse(found.document()) == found


PLACES = st.from_regex(
    r"(https?://|oci:|)[a-z.:\[\]@]{0,12}(:[0-9]{1,6})?/[a-zA-Z/._-]{0,12}(@sha256:[0-9a-f]{0,4})?",
    fullmatch=True,
)


@given(TEXTS | PLACES)
@example("oci:")
@example("oci:/a\0b")
@example("host.example:99999/a")
@example("http://[::1]:5000/a")
def test_texts_name_a_repository_or_are_an_error(text: str) -> None:
    try:
        name = RepositoryName.parse(text)
    except ReferenceInvalid as error:
        str(error).encode()
        return
    assert RepositoryName.parse(name.text) == name


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6, max_size=20),
    st.sampled_from(["", "http://", "https://"]),
)
def test_no_password_in_a_name_is_shown(password: str, scheme: str) -> None:
    text = f"{scheme}ann:{password}@registry.example.com/team/cache"
    with pytest.raises(ReferenceInvalid) as raised:
        RepositoryName.parse(text)
    assert password not in str(raised.value).replace("registry.example.com/team/cache", "")
    assert redacted(f"see {scheme or '//'}ann:{password}@host/x").endswith("//***@host/x")
