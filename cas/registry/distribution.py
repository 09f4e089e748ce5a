"""Repositories on a registry, over HTTP (OCI distribution-spec 1.1)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from flyte_build.cas.blobs import BlobWriter
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    RegistryCorrupt,
    RegistryDenied,
    RegistryRefused,
)

from .connection import drain
from .descriptor import MANIFESTS, Descriptor
from .error_responses import API_VERSION, failure, foreign, late
from .manifest import LIMIT, Manifest
from .name import RepositoryName
from .repository import Moved
from .retry_budget import SPEED, STALL, RetryBudget, Transient, time_left
from .session import RegistrySession

T = TypeVar("T")
_CHUNK = 1 << 20
_ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS))}
_FOUND = frozenset({200, 404})
# distribution-spec 1.1, "Error Codes".
_UNKNOWN = ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN")
_PAGES = 1_000
_TAGS = 1_000_000


class RemoteRepository:
    """A repository on a registry. No request is sent before its first use."""

    def __init__(self, name: RepositoryName, counters: Counters, patience: RetryBudget) -> None:
        self.name, self._counters, self._patience = name, counters, patience
        self._session = RegistrySession(name, counters)

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest with a digest or tag, verified, or None if it is missing."""
        if isinstance(reference, Digest):
            return self._persist(lambda timeout: self._manifest(reference, timeout))
        return self._patience.look_up(lambda timeout: self._manifest(reference, timeout))

    def _persist(self, move: Callable[[float], T], done: Callable[[], int] = lambda: 0) -> T:
        return self._patience.transfer(move, lambda: self._session.reached, done)

    def _manifest(self, reference: Digest | str, timeout: float) -> Manifest | None:
        with self._ask(
            "GET", f"manifests/{reference}", _FOUND, headers=_ACCEPT, timeout=timeout
        ) as answer:
            data = b"".join(self._pieces(answer, LIMIT))
            if answer.status == 404:
                return None
            self._counters.add(bytes_received=len(data))
            digest = Digest.of(data)
            claimed = answer.headers.get("Docker-Content-Digest", digest)
            expected = reference if isinstance(reference, Digest) else claimed
            if not expected == claimed == digest:
                raise RegistryCorrupt(
                    f"{self.name} sent the wrong manifest for {expected:.100}",
                    why=f"Its bytes have the digest {digest}.",
                )
            try:
                return Manifest.parse(data)
            except RegistryCorrupt as error:
                if _is_page(answer):
                    raise foreign(self.name, answer, "a manifest") from None
                raise RegistryCorrupt(
                    error.what, why=f"{self.name} sent it for {reference:.100}. {error.why}"
                ) from None

    def put_manifest(self, manifest: Manifest, tag: str | None = None) -> None:
        """Upload a manifest under its digest and `tag`.

        Raises `BlobMissing` if something that it refers to is missing.
        """
        headers = {"Content-Type": manifest.media_type}

        def put(timeout: float) -> None:
            place, allowed = f"manifests/{tag or manifest.digest}", frozenset({200, 201, 202})
            drain(
                self._ask(
                    "PUT", place, allowed, headers=headers, body=manifest.data, timeout=timeout
                )
            )

        try:
            self._persist(put)
        except RegistryRefused as error:
            if any(code in error.why for code in _UNKNOWN) or error.why.startswith(
                "It answered 404"
            ):
                raise BlobMissing(
                    f"{self.name} does not have everything that a manifest refers to", why=error.why
                ) from None
            raise

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob of that digest and size exists."""

        def ask(timeout: float) -> bool:
            answer = self._ask("HEAD", f"blobs/{blob.digest}", _FOUND, timeout=timeout)
            drain(answer)
            length = answer.headers.get("Content-Length")
            return answer.status == 200 and (length is None or length == str(blob.size))

        return self._persist(ask)

    def download(self, blob: Descriptor, writer: BlobWriter, moved: Moved) -> None:
        """Write a blob's verified bytes to `writer`, without finishing it. Raises `BlobMissing`."""
        self._persist(
            lambda timeout: self._download(blob, writer, moved, timeout), lambda: writer.size
        )
        if (writer.size, writer.digest) != (blob.size, blob.digest):
            raise RegistryCorrupt(
                f"{self.name} sent the wrong bytes for {blob.digest}",
                why=f"They are {writer.size:,} bytes with the digest {writer.digest}.",
            )

    def _download(self, blob: Descriptor, writer: BlobWriter, moved: Moved, timeout: float) -> None:
        """Download the blob, or resume where the last attempt broke off (RFC 9110, 14.2)."""
        if writer.size and writer.size == blob.size:
            return
        headers = {"Range": f"bytes={writer.size}-"} if writer.size else {}
        with self._ask(
            "GET",
            f"blobs/{blob.digest}",
            frozenset({200, 206, 404, 416}),
            headers=headers,
            timeout=timeout,
        ) as answer:
            if answer.status == 404:
                raise BlobMissing(f"{self.name} does not have {blob.digest}")
            # RFC 9110, 14.4: there are no more bytes.
            if (
                answer.status == 416
                and answer.headers.get("Content-Range") == f"bytes */{writer.size}"
            ):
                raise RegistryCorrupt(
                    f"{self.name} has the wrong bytes for {blob.digest}",
                    why=f"There are {writer.size:,} of them instead of {blob.size:,}.",
                )
            if writer.size and (
                answer.status != 206
                or not answer.headers.get("Content-Range", "").startswith(f"bytes {writer.size}-")
            ):
                moved(-writer.size)
                writer.restart()
            if answer.status != (206 if writer.size else 200):
                raise Transient(
                    f"{self.name} does not resume a download", why=f"It answered {answer.status}."
                )
            for piece in self._pieces(answer, blob.size - writer.size, is_long=True):
                writer.write(piece)
                moved(len(piece))
                self._counters.add(bytes_received=len(piece))
        if writer.size < blob.size:
            raise Transient(
                f"{self.name} sent only a part of {blob.digest}",
                why=f"{writer.size:,} of {blob.size:,} bytes arrived.",
            )

    def _pieces(
        self, answer: BaseHTTPResponse, limit: int, is_long: bool = False
    ) -> Iterator[bytes]:
        """Yield the body of a response, of at most `limit` bytes.

        If it `is_long`, every piece that arrives extends its deadline.
        """
        began, count = time.monotonic(), 0
        try:
            while True:
                if is_long:
                    self._session.deadlines.extend(answer, time_left(began, count))
                if not (piece := answer.read1(_CHUNK)):  # Keeps the bytes before a reset.
                    break
                count += len(piece)
                if count > limit:
                    raise RegistryCorrupt(
                        f"{self.name} sent too many bytes",
                        why="A response is longer than expected.",
                    )
                yield piece
        except (HTTPError, OSError) as error:
            raise (
                late(self.name)
                if self._session.deadlines.is_late(answer)
                else failure(self.name, error)
            ) from error
        if self._session.deadlines.is_late(answer):
            raise late(self.name)

    def upload(
        self,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        moved: Moved,
        mount: RepositoryName | None = None,
    ) -> None:
        """Upload a blob whose bytes `source` opens.

        `mount` is a repository of the same registry that may already hold it.
        """
        self._persist(lambda timeout: self._upload(blob, source, moved, mount, timeout))

    def _upload(
        self,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        moved: Moved,
        mount: RepositoryName | None,
        timeout: float,
    ) -> None:
        started = self._start_upload(blob, mount, timeout)
        if started.status == 201:  # It was mounted.
            moved(blob.size)
            return
        place = self._session.led(
            self._session.url("blobs/uploads/"), started.headers.get("Location", "")
        )
        place += f"{'&' if urlsplit(place).query else '?'}{urlencode({'digest': blob.digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        with source() as stream:
            if stream.seek(0, os.SEEK_END) != blob.size:
                raise BlobCorrupt(
                    f"Blob {blob.digest} is corrupt",
                    why=f"It has {stream.tell():,} bytes instead of {blob.size:,}.",
                )
            stream.seek(0)
            # The registry may copy the whole blob before it answers.
            body, patience = (
                _Counted(stream, moved, self._counters),
                STALL + blob.size / (100 * SPEED),
            )
            try:
                answer = self._session.ask(
                    "PUT",
                    place,
                    frozenset({201, 204, 404, 409, 416}),
                    headers=headers,
                    body=body,
                    timeout=patience,
                )
                drain(answer)
                # The upload has expired, or collided with another one: start again.
                if answer.status >= 400:
                    raise Transient(
                        f"{self.name} lost an upload", why=f"It answered {answer.status}."
                    )
            except BaseException:
                moved(-body.tell())
                raise

    def _start_upload(
        self, blob: Descriptor, mount: RepositoryName | None, timeout: float
    ) -> BaseHTTPResponse:
        headers, allowed = {"Content-Length": "0"}, frozenset({201, 202})
        if mount:
            query = urlencode({"mount": blob.digest, "from": mount.path})
            try:
                started = self._ask(
                    "POST", f"blobs/uploads/?{query}", allowed, headers=headers, timeout=timeout
                )
                drain(started)
                return started
            except (RegistryDenied, RegistryRefused):
                pass  # Write access here does not imply read access there.
        started = self._ask(
            "POST", "blobs/uploads/", frozenset({202}), headers=headers, timeout=timeout
        )
        drain(started)
        return started

    def tags(self) -> list[str]:
        """Return all tags, in no particular order."""
        found: dict[str, None] = {}
        page, asked, before = "tags/list?n=1000", set[str](), -1
        while page:
            if page in asked or len(asked) == _PAGES or len(found) > _TAGS or len(found) == before:
                raise RegistryCorrupt(
                    f"The list of tags of {self.name} does not end",
                    why=f"After {len(asked):,} pages there is still another one.",
                )
            asked.add(page)
            before = len(found)
            tags, query = self._persist(partial(self._tags, page))
            found.update(dict.fromkeys(tags))
            page = f"tags/list?{query}" if query else ""
        return list(found)

    def _tags(self, page: str, timeout: float) -> tuple[list[str], str]:
        """Return the tags on a page, and the query of the next page's URL.

        The rest of that URL is ignored, since its host may be an internal one.
        """
        with self._ask("GET", page, _FOUND, timeout=timeout) as answer:
            data = b"".join(self._pieces(answer, 64 << 20, is_long=True))
            try:
                document = json.loads(data)
            except (ValueError, RecursionError):
                if answer.status == 404 and API_VERSION in answer.headers:
                    return [], ""
                raise foreign(self.name, answer, "its tags") from None
            if answer.status == 404:  # The repository does not exist yet.
                return [], ""
            tags = document.get("tags", 0) if isinstance(document, dict) else 0
            if not isinstance(tags, list | None):
                raise RegistryCorrupt(
                    f"The tags of {self.name} are malformed", why="They are not a list."
                )
            # RFC 8288; the only relation in the specification is "next".
            link = answer.headers.get("Link", "")
            try:
                following = (
                    urlsplit(link.partition("<")[2].partition(">")[0]).query
                    if "next" in link.partition(">")[2]
                    else ""
                )
            except ValueError:
                raise RegistryCorrupt(
                    f"The tags of {self.name} are malformed",
                    why="The link to the next page is not a URL.",
                ) from None
            return [str(tag) for tag in tags or ()], following

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest and all of its tags, if it exists.

        Raises `RegistryRefused` if the registry does not allow deletion.
        """
        allowed = frozenset({200, 202, 204, 404})
        self._persist(
            lambda timeout: drain(
                self._ask("DELETE", f"manifests/{digest}", allowed, timeout=timeout)
            )
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold nothing: the registry collects as it likes; `put_manifest` notices a lost blob."""
        yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold nothing: registries cannot lock tags. Callers check a tag again after moving it."""
        yield

    def _ask(
        self, method: str, rest: str, allowed: frozenset[int], **options: Any
    ) -> BaseHTTPResponse:
        return self._session.ask(method, self._session.url(rest), allowed, **options)


def _is_page(answer: BaseHTTPResponse) -> bool:
    """Whether a response is a web page, as those of other servers are."""
    return "html" in answer.headers.get("Content-Type", "").lower()


class _Counted:
    """A file that counts and reports the bytes read from it."""

    def __init__(self, stream: BinaryIO, moved: Moved, counters: Counters) -> None:
        self._stream, self._moved, self._counters = stream, moved, counters

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._moved(len(data))
        self._counters.add(bytes_sent=len(data))
        return data

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int) -> int:
        self._moved(position - self._stream.tell())
        return self._stream.seek(position)
