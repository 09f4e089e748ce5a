"""Support for tests of the registry client: repositories, opened without the user's settings.

There are also artifacts to put into them.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import EMPTY_CONFIG, Manifest, empty_config
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.cas.registry.transfer import Transfer
from tests.support.checkout import CHECKOUT
from tests.support.listening import Listener

WITH_TESTS = f"import sys; sys.path.append({str(CHECKOUT)!r})\n"
"""Start of code for another process that uses these tests.

They come after the installed packages, which are under test.
"""
LOGIN = ("ann", "hunter2secret")
_SETTINGS = (
    "DOCKER_AUTH_CONFIG",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


@pytest.fixture(autouse=True)
def no_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own credentials, proxies and authorities out of the tests."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path_factory.mktemp("docker")))


def docker_config(host: str, login: tuple[str, str] = LOGIN) -> str:
    """Return the text of a `config.json` with credentials for a host."""
    return json.dumps(
        {"auths": {host: {"auth": base64.b64encode(":".join(login).encode()).decode()}}}
    )


def log_in(host: str, login: tuple[str, str] = LOGIN) -> None:
    """Store credentials for a host as docker does."""
    Path(os.environ["DOCKER_CONFIG"], "config.json").write_text(docker_config(host, login))


def repository_of(
    name: str | RepositoryName, counters: Counters | None = None, patience: float = 5.0
) -> Repository:
    """Return a newly opened repository."""
    name = RepositoryName.parse(name) if isinstance(name, str) else name
    return open_repository(name, counters or Counters(), RetryBudget(patience))


def blob_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


def upload(
    repository: Repository,
    cache: Cache,
    data: bytes,
    moved: Callable[[int], None] = lambda count: None,
) -> Descriptor:
    """Upload a blob by way of a file."""
    cache.blobs.put(data)
    blob = blob_of(data)
    repository.upload(blob, lambda: cache.blobs.open(blob.digest), moved)
    return blob


def download(
    repository: Repository,
    cache: Cache,
    blob: Descriptor,
    moved: Callable[[int], None] = lambda count: None,
) -> bytes:
    """Download a blob into a cache, and read it there."""
    with cache.blobs.batch() as batch, batch.writer() as writer:
        repository.download(blob, writer, moved)
        writer.finish()
    return cache.blobs.read(blob.digest)


def artifact_of(
    cache: Cache, *layers: bytes, kind: str = "application/vnd.test.v1", **annotations: str
) -> Manifest:
    """Return an artifact of these layers and the empty config, and put them into a cache."""
    cache.blobs.put(EMPTY_CONFIG)
    for layer in layers:
        cache.blobs.put(layer)
    return Manifest.of_layers(
        empty_config(), map(blob_of, layers), artifact_type=kind, annotations=annotations
    )


def transfer_of(
    cache: Cache, progress: Callable[[int, int], None] = lambda done, total: None
) -> Transfer:
    return Transfer(cache.blobs, Ledger(cache.database), progress)


def seen(listener: Listener) -> list[str]:
    """Return method and kind of each request to a server: "GET manifests", "PUT uploads"."""
    kinds = ("uploads", "blobs", "manifests", "tags")
    return [
        f"{each.method} {next((kind for kind in kinds if f'/{kind}/' in each.path), each.path)}"
        for each in listener.requests
    ]
