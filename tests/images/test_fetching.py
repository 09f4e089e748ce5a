"""Fetching wheels from odd servers, and the resulting errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flyte_build.cas.blobs import Blobs
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError
from flyte_build.images.layers.wheel_download import Fetcher
from flyte_build.images.lock.pins import Wheel
from tests.support.bases import blobs_of
from tests.support.listening import (
    DRIPS,
    HANDSHAKE,
    OK,
    Answer,
    Cut,
    Exchange,
    Listener,
    Recorder,
    dripping,
)
from tests.support.registries import forward_proxy

DATA = os.urandom(300_000)
SIZE = ("Content-Length", "300000")


class Index(Listener):
    """A server whose first answers are odd; after them it sends the wheel."""

    def __init__(self, *odd: Callable[[], Answer]) -> None:
        super().__init__()
        self.odd = list(odd)

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        return self.odd.pop(0)() if self.odd else Answer.of(200, [], DATA)


def wheel_at(url: str) -> Wheel:
    return Wheel(
        name="pkg",
        version="1.0",
        url=f"{url}/pkg-1.0-py3-none-any.whl",
        digest=Digest.of(DATA),
        size=len(DATA),
    )


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    blobs = blobs_of(tmp_path / "store")
    yield blobs
    assert not list(blobs.litter())


def fetch(blobs: Blobs, *wheels: Wheel) -> list[str]:
    return [path for _, path in Fetcher("/", blobs, Counters()).fetch(wheels)]


def reset() -> Answer:
    raise Cut(reset=True)


@pytest.mark.parametrize(
    "odd",
    [
        lambda: Answer.of(503, [], b""),
        lambda: Answer.of(429, [], b""),
        reset,
        lambda: Answer(200, [("Content-Length", "300000")], [DATA[:99]]),
    ],
    ids=["503", "429", "reset", "short"],
)
def test_what_passes_is_tried_again(blobs: Blobs, odd: Callable[[], Answer]) -> None:
    """Temporary errors, resets and short answers are retried."""
    with Index(odd, odd) as index:
        (path,) = fetch(blobs, wheel_at(index.url))
        assert Path(path).read_bytes() == DATA
        assert len(index.requests) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "first"),
    [("https", HANDSHAKE), *(("http", first) for first in DRIPS.values()), ("http", OK + b"\r\n")],
    ids=["handshake", *DRIPS, "body of no length"],
)
def test_a_server_that_drips(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, scheme: str, first: bytes
) -> None:
    """A server that sends one byte at a time is given up, wherever the slow part is."""
    for name in ("_CONNECT", "STALL"):
        monkeypatch.setattr(f"flyte_build.images.layers.wheel_download.{name}", 2.0)
    with (
        dripping(first) as host,
        pytest.raises(ImageBuildError, match=r"Cannot fetch the wheel of pkg 1\.0"),
    ):
        fetch(blobs, wheel_at(f"{scheme}://{host}"))


def test_a_wheel_is_fetched_once(blobs: Blobs) -> None:
    """A wheel in the store is not requested again, unless it is damaged."""
    with Index() as index:
        wheel = wheel_at(index.url)
        (path,) = fetch(blobs, wheel, *[wheel][:0])
        fetch(blobs, wheel)
        assert len(index.requests) == 1
        os.chmod(path, 0o644)
        Path(path).write_bytes(b"bad")
        fetch(blobs, wheel)
        assert len(index.requests) == 2
        assert Path(path).read_bytes() == DATA


def test_gone(blobs: Blobs) -> None:
    """A 404 is final; the error names the package, and no credentials or query of the URL."""
    with Index(lambda: Answer.of(404, [], b"")) as index:
        wheel = replace(
            wheel_at(index.url), url=f"http://ann:s3cret@{index.host}/pkg.whl?token=hidden"
        )
        with pytest.raises(ImageBuildError) as error:
            fetch(blobs, wheel)
    assert error.value.what == "Cannot fetch the wheel of pkg 1.0"
    assert "answered 404" in error.value.why
    assert not any(secret in str(error.value) for secret in ("s3cret", "hidden"))


def test_nobody_there(blobs: Blobs) -> None:
    """A server that cannot be reached is an error."""
    with Index() as index:
        wheel = wheel_at(index.url)
    with pytest.raises(ImageBuildError, match=r"Cannot fetch the wheel of pkg 1\.0"):
        fetch(blobs, wheel)


@pytest.mark.parametrize("data", [DATA[:-1] + b"x", DATA + b"more"], ids=["other", "more"])
def test_other_bytes(blobs: Blobs, data: bytes) -> None:
    """Bytes other than the locked ones are not stored."""
    with Recorder(data) as server, pytest.raises(ImageBuildError, match=r"pkg 1\.0"):
        fetch(blobs, wheel_at(server.url))
    assert os.listdir(blobs.folder) == []


def test_size_that_the_index_does_not_say(blobs: Blobs) -> None:
    """A wheel without a known size is verified by its hash alone."""
    with Index() as index:
        assert fetch(blobs, replace(wheel_at(index.url), size=0))


def test_netrc(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for an index come from netrc."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password pw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Index() as index:
        fetch(blobs, wheel_at(index.url))
        assert index.requests[0].headers["Authorization"] == "Basic YW5uOnB3"


def test_credentials_are_for_their_own_index(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of an index go to no other port, scheme or host, not even on a redirect.

    Of two indexes, those of the nearer one are used.
    """
    with (
        Index() as other,
        Index(lambda: Answer.of(302, [("Location", f"{other.url}/pkg.whl")], b"")) as index,
    ):
        monkeypatch.setenv(
            "UV_INDEX",
            f"http://far:x@{index.host}/far/simple http://b%40b:pw@{index.host}/near/simple",
        )
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"https://secure:x@{other.host}/simple")
        monkeypatch.setenv("UV_INDEX_URL", "http://elsewhere:x@localhost/simple")
        fetch(blobs, wheel_at(f"{index.url}/near/files"))
        assert index.requests[0].headers["Authorization"] == "Basic YkBiOnB3"
        assert [request.headers["Authorization"] for request in other.requests] == [None]
        blobs.delete(wheel_at("").digest)
        fetch(blobs, wheel_at(other.url))
        assert other.requests[-1].headers["Authorization"] is None


def test_denied(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about wrong credentials names their index and variable, but not their values."""
    with Index(lambda: Answer.of(403, [], b"")) as index, pytest.raises(ImageBuildError) as error:
        monkeypatch.setenv("UV_EXTRA_INDEX_URL", f"http://ann:s3cret@{index.host}/simple")
        fetch(blobs, wheel_at(index.url))
    assert (
        f"the index {index.url}/simple (UV_EXTRA_INDEX_URL) requires other credentials"
        in error.value.why
    )
    assert (
        "UV_EXTRA_INDEX_URL" in error.value.hint
        and "later" not in error.value.hint
        and "s3cret" not in str(error.value)
    )


def test_proxy(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the usual variables is used."""
    with forward_proxy(tmp_path / "proxy") as proxy, Index() as index:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        fetch(blobs, wheel_at(index.url))
        assert [request for request in proxy.requests() if index.host in request]


def test_several_at_a_time(blobs: Blobs) -> None:
    """The first error of parallel fetches ends the others, and names its package."""
    with Index() as index:
        good = [replace(wheel_at(index.url), name=f"good{at}") for at in range(3)]
        bad = replace(wheel_at(index.url), name="bad", digest=Digest.of(b"other"))
        with pytest.raises(ImageBuildError, match="The wheel of bad"):
            fetch(blobs, *good, bad)


def test_files(blobs: Blobs, tmp_path: Path) -> None:
    """Local files are found by URL, and by a path relative to the project's root."""
    (tmp_path / "a b.whl").write_bytes(DATA)
    wheel = wheel_at("x")
    (path,) = [
        path
        for _, path in Fetcher(str(tmp_path), blobs, Counters()).fetch(
            [replace(wheel, url="a b.whl")]
        )
    ]
    blobs.delete(wheel.digest)
    assert fetch(blobs, replace(wheel, url=(tmp_path / "a b.whl").as_uri())) == [path]
