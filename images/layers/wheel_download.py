"""Fetching of wheels into the store, each as the blob named by the wheel's locked hash.

So a URL cannot deliver anything but the locked wheel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flyte_build.cas.blobs import Blobs, BlobWriter
from flyte_build.cas.counters import Counters
from flyte_build.cas.registry.retry_budget import STALL, time_left
from flyte_build.errors import ImageBuildError
from flyte_build.images.lock.indexes import Indexes
from flyte_build.images.lock.pins import Wheel

if TYPE_CHECKING:
    from requests import Response, Session

    from flyte_build.cas.registry.deadlines import Deadlines

Progress = Callable[[int, int], None]
_PARALLEL = 6
_LOOK = 0.2  # Seconds between two checks for a stop.
_ATTEMPTS = 4
_PIECE = 1 << 18
_CONNECT = 10.0  # Seconds until connecting fails.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class Fetcher:
    """Fetcher of wheels, several at a time.

    Proxies, private certificate authorities and netrc work as in `requests`; credentials come also
    from the user's indexes. Paths of wheels are relative to `root`. `progress` is called with the
    bytes fetched so far and their total; `stopped` returns whether to give up.
    """

    def __init__(
        self,
        root: str,
        blobs: Blobs,
        counters: Counters,
        progress: Progress = lambda done, total: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._root, self._blobs, self._counters, self._progress, self._stopped = (
            root,
            blobs,
            counters,
            progress,
            stopped,
        )

    @cached_property
    def _indexes(self) -> Indexes:
        return Indexes.configured(self._root, os.environ)

    def fetch(self, wheels: Sequence[Wheel]) -> list[tuple[Wheel, str]]:
        """Return the wheels with the paths of their files, and fetch the missing ones.

        Raises `ImageBuildError` for a wheel that cannot be fetched, or differs from the locked one.
        """
        missing = [wheel for wheel in wheels if not self._is_good(wheel)]
        if missing:
            total, done = sum(wheel.size for wheel in missing), 0

            def moved(count: int) -> None:
                nonlocal done
                done += count
                self._progress(done, max(done, total))

            pool = ThreadPoolExecutor(_PARALLEL)
            try:
                waiting = {
                    pool.submit(self._fetch, wheel, moved)
                    for wheel in sorted(missing, key=lambda wheel: -wheel.size)
                }
                while waiting:
                    done_now, waiting = wait(waiting, _LOOK, FIRST_COMPLETED)
                    for future in done_now:
                        future.result()
                    if self._stopped():
                        raise ImageBuildError("The fetching of wheels was stopped")
            except Exception:
                pool.shutdown(wait=not self._stopped(), cancel_futures=True)
                raise
            finally:
                # After an interruption, do not wait for a server that sends nothing.
                pool.shutdown(wait=False, cancel_futures=True)
        return [(wheel, self._blobs.path(wheel.digest)) for wheel in wheels]

    def _is_good(self, wheel: Wheel) -> bool:
        return self._blobs.has(wheel.digest) and self._blobs.verify(wheel.digest)

    def _fetch(self, wheel: Wheel, moved: Callable[[int], None]) -> None:
        with self._blobs.batch() as batch, batch.writer() as writer:
            address = urlsplit(wheel.url)
            if not address.scheme:
                self._copy(wheel, os.path.join(self._root, wheel.url), writer, moved)
            elif address.scheme == "file":
                self._copy(wheel, unquote(address.path), writer, moved)
            else:
                self._download(wheel, writer, moved)
            if writer.digest != wheel.digest:
                raise ImageBuildError(
                    f"The wheel of {wheel.name} {wheel.version} is not the locked one",
                    why=(
                        f"{_shown(wheel)} has the hash {writer.digest}, but {wheel.digest} is"
                        " locked."
                    ),
                    hint=f"If you trust it, run `flyte lock --upgrade {wheel.name}`.",
                )
            writer.finish(wheel.digest)

    def _copy(
        self, wheel: Wheel, path: str, writer: BlobWriter, moved: Callable[[int], None]
    ) -> None:
        try:
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    writer.write(piece)
                    moved(len(piece))
        except OSError as error:
            raise _unavailable(wheel, f"{path}: {error.strerror}.") from None

    def _download(self, wheel: Wheel, writer: BlobWriter, moved: Callable[[int], None]) -> None:
        from requests import RequestException
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        index = self._indexes.of(wheel.url)
        login = index.login if index else None  # If None, `requests` reads netrc.

        def attempt() -> None:
            if writer.size:
                moved(-writer.size)
                writer.restart()
            self._counters.add(requests=1)
            with self._client.get(
                wheel.url,
                stream=True,
                timeout=(_CONNECT, STALL),
                headers={"Accept-Encoding": "identity"},
                auth=login,
            ) as answer:
                if answer.status_code in _PASSING:
                    raise _Passing(f"The server answered {answer.status_code}.")
                if answer.status_code in (401, 403):
                    raise self._denied(wheel, answer)
                if answer.status_code != 200:
                    raise _unavailable(
                        wheel, f"{_shown(wheel)} answered {answer.status_code} ({answer.reason})."
                    )
                began = time.monotonic()
                for piece in answer.iter_content(_PIECE):
                    if 0 < wheel.size < writer.size + len(piece):
                        raise _unavailable(
                            wheel,
                            f"{_shown(wheel)} has more than the {wheel.size:,} bytes that are"
                            " locked.",
                        )
                    writer.write(piece)
                    self._counters.add(bytes_received=len(piece))
                    moved(len(piece))
                    self._deadlines.extend(answer.raw, time_left(began, writer.size))
                if self._deadlines.is_late(answer.raw):
                    raise _Passing("The server sends too slowly.")
            if writer.size < wheel.size:
                raise _Passing(f"Only {writer.size:,} of {wheel.size:,} bytes arrived.")

        again = Retrying(
            retry=retry_if_exception_type((_Passing, RequestException)),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        try:
            again(attempt)
        except (_Passing, RequestException) as error:
            raise _unavailable(wheel, f"{_shown(wheel)}: {_reason(error)}") from None

    def _denied(self, wheel: Wheel, answer: Response) -> ImageBuildError:
        """Return the error for a server that requires credentials, or other ones than were sent.

        After a redirect, the server in question may be another one than in the wheel's URL.
        """
        index = self._indexes.of(answer.url)
        which = f"{index} requires" if index else f"{urlsplit(answer.url).hostname} requires"
        wants = "other credentials" if "Authorization" in answer.request.headers else "credentials"
        return ImageBuildError(
            _cannot(wheel),
            why=(
                f"{_shown(wheel)} answered {answer.status_code} ({answer.reason}): {which} {wants}."
            ),
            hint=self._indexes.advice(answer.url),
        )

    @cached_property
    def _deadlines(self) -> Deadlines:
        from flyte_build.cas.registry.deadlines import Deadlines

        return Deadlines()

    @cached_property
    def _client(self) -> Session:
        from requests import Session

        from flyte_build.cas.registry.deadlines import TimedAdapter

        session = Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, TimedAdapter(self._deadlines, pool_maxsize=_PARALLEL))
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):  # Variables of `requests` have priority.
            if (
                os.environ.get(name)
                and not os.environ.get("REQUESTS_CA_BUNDLE")
                and not os.environ.get("CURL_CA_BUNDLE")
            ):
                session.verify = os.environ[name]
                break
        return session


class _Passing(Exception):
    """A failure that may be temporary."""


def _shown(wheel: Wheel) -> str:
    """Return a wheel's URL without parts that may be secret: credentials and the query."""
    address = urlsplit(wheel.url)
    if not address.scheme:
        return wheel.url
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, _Passing) else type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _cannot(wheel: Wheel) -> str:
    return f"Cannot fetch the wheel of {wheel.name} {wheel.version}"


def _unavailable(wheel: Wheel, why: str) -> ImageBuildError:
    return ImageBuildError(
        _cannot(wheel),
        why=why,
        hint=(f"Try again later; if it is gone for good, run `flyte lock --upgrade {wheel.name}`."),
    )
