"""Records in a repository: "this key produced this artifact".

Each is an OCI index of its own, under a tag that contains the key. The artifact's manifest does not
contain the key, since two keys can have one artifact: so deleting the index of a record deletes
nothing else.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flyte_build.cas.digest import Key
from flyte_build.cas.records import Record
from flyte_build.errors import RegistryCorrupt, StoreError

from .descriptor import Descriptor
from .manifest import Manifest
from .repository import Repository
from .tags import RECORD, record_tag

TYPE = "application/vnd.flyte.record.v1+json"
_PARALLEL = 8
KEY, KIND, PROJECT, INPUTS = (
    "dev.flyte.key",
    "dev.flyte.kind",
    "dev.flyte.project",
    "dev.flyte.inputs",
)
CREATED = "org.opencontainers.image.created"  # image-spec, annotations.md: RFC 3339.
_KIND_NAME = re.compile(r"[a-z]{1,32}\Z")


@dataclass(frozen=True)
class PublishedRecord:
    """A record in a repository, with its `index` there.

    `artifact` is the descriptor of a manifest, `published` is in seconds since the epoch.
    """

    key: Key
    kind: str
    artifact: Descriptor
    project: str
    inputs: Mapping[str, Any]
    published: float
    index: Manifest

    @classmethod
    def parse(cls, manifest: Manifest) -> PublishedRecord:
        """Parse the record in an index. Raises `RegistryCorrupt` if it is not a record."""
        texts = manifest.annotations
        # Older tools drop the type when they copy an index.
        if manifest.artifact_type not in (TYPE, "") or len(manifest.manifests) != 1:
            raise _no_record(manifest, "It is of another type.")
        if absent := [name for name in (KEY, KIND, PROJECT, INPUTS, CREATED) if name not in texts]:
            raise _no_record(manifest, f"It has no annotation {absent[0]}.")
        try:
            published = datetime.fromisoformat(texts[CREATED]).timestamp()
        except (ValueError, OverflowError):
            raise _no_record(manifest, f"Its {CREATED} is not a time.") from None
        try:
            inputs = json.loads(texts[INPUTS])
        except (ValueError, RecursionError):
            inputs = None
        if not isinstance(inputs, dict):
            raise _no_record(manifest, f"Its {INPUTS} is not a JSON object.")
        try:
            key = Key(Key.parse(texts[KEY]))
        except StoreError:
            raise _no_record(manifest, f"Its {KEY} is not a key.") from None
        if not _KIND_NAME.match(texts[KIND]) or not texts[PROJECT].isprintable():
            raise _no_record(manifest, f"Its {KIND} or {PROJECT} is not a name.")
        return cls(
            key, texts[KIND], manifest.manifests[0], texts[PROJECT], inputs, published, manifest
        )


def _no_record(manifest: Manifest, why: str) -> RegistryCorrupt:
    return RegistryCorrupt(f"{manifest.digest} is not a record", why=why)


def record_index(record: Record, artifact: Descriptor, project: str) -> Manifest:
    """Create the index of a record that is published now."""
    annotations = {
        KEY: record.key,
        KIND: record.kind,
        PROJECT: project,
        INPUTS: json.dumps(record.inputs, sort_keys=True),
        CREATED: datetime.fromtimestamp(int(time.time()), UTC).isoformat(),
    }
    return Manifest.of_manifests([artifact], artifact_type=TYPE, annotations=annotations)


def read_record(repository: Repository, tag: str) -> PublishedRecord | None:
    """Return the record under its tag; None if there is none or it is not valid.

    Raises `RegistryError`.
    """
    try:
        index = repository.manifest(tag)
        record = index and PublishedRecord.parse(index)
        return record if record and record_tag(record.key) == tag else None
    except RegistryCorrupt:
        return None


def has_artifact(repository: Repository, key: Key) -> bool:
    """Whether a repository has the artifact of a key, and not only its record.

    Raises `RegistryError`.
    """
    record = read_record(repository, record_tag(key))
    return record is not None and repository.manifest(record.artifact.digest) is not None


def published_records(repository: Repository) -> Iterator[PublishedRecord]:
    """Yield all records in a repository, skipping invalid ones."""
    tags = [tag for tag in repository.tags() if tag.startswith(RECORD)]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        yield from filter(None, pool.map(lambda tag: read_record(repository, tag), tags))
