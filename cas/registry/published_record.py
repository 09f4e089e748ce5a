"""Records in a repository: "this key produced this artifact", each an OCI index of its own under a
tag made from the key.

An artifact's manifest knows no key, since two keys can have one artifact: deleting a record's own
index takes nothing else along.
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
    """A record as it stands in a repository, in an `index` of its own.

    `artifact` names a manifest, `published` are seconds since the epoch.
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
        """The record in an index. Raises `RegistryCorrupt` for what is none."""
        texts = manifest.annotations
        # Older tools drop the type when they copy.
        if manifest.artifact_type not in (TYPE, "") or len(manifest.manifests) != 1:
            raise _no_record(manifest, "It is of another kind.")
        if absent := [name for name in (KEY, KIND, PROJECT, INPUTS, CREATED) if name not in texts]:
            raise _no_record(manifest, f"It has no annotation {absent[0]}.")
        try:
            published = datetime.fromisoformat(texts[CREATED]).timestamp()
        except (ValueError, OverflowError):
            raise _no_record(manifest, f"Its {CREATED} is no time.") from None
        try:
            inputs = json.loads(texts[INPUTS])
        except (ValueError, RecursionError):
            inputs = None
        if not isinstance(inputs, dict):
            raise _no_record(manifest, f"Its {INPUTS} are no JSON object.")
        try:
            key = Key(Key.parse(texts[KEY]))
        except StoreError:
            raise _no_record(manifest, f"Its {KEY} is no key.") from None
        if not _KIND_NAME.match(texts[KIND]) or not texts[PROJECT].isprintable():
            raise _no_record(manifest, f"Its {KIND} or {PROJECT} is no name.")
        return cls(
            key, texts[KIND], manifest.manifests[0], texts[PROJECT], inputs, published, manifest
        )


def _no_record(manifest: Manifest, why: str) -> RegistryCorrupt:
    return RegistryCorrupt(f"{manifest.digest} is no record", why=why)


def record_index(record: Record, artifact: Descriptor, project: str) -> Manifest:
    """The index that is the record, as of now."""
    annotations = {
        KEY: record.key,
        KIND: record.kind,
        PROJECT: project,
        INPUTS: json.dumps(record.inputs, sort_keys=True),
        CREATED: datetime.fromtimestamp(int(time.time()), UTC).isoformat(),
    }
    return Manifest.of_manifests([artifact], artifact_type=TYPE, annotations=annotations)


def read_record(repository: Repository, tag: str) -> PublishedRecord | None:
    """The record under its tag; None for what is none, or another's. Raises `RegistryError`."""
    try:
        index = repository.manifest(tag)
        record = index and PublishedRecord.parse(index)
        return record if record and record_tag(record.key) == tag else None
    except RegistryCorrupt:
        return None


def has_artifact(repository: Repository, key: Key) -> bool:
    """Whether a repository has what a key produced, and not only the record of it. Raises
    `RegistryError`.
    """
    record = read_record(repository, record_tag(key))
    return record is not None and repository.manifest(record.artifact.digest) is not None


def published_records(repository: Repository) -> Iterator[PublishedRecord]:
    """All records in a repository; what stands under a record's tag and is none is passed over."""
    tags = [tag for tag in repository.tags() if tag.startswith(RECORD)]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        yield from filter(None, pool.map(lambda tag: read_record(repository, tag), tags))
