"""flyte.lock: the pins of one project, as a TOML file that is made to be committed and merged
(docs/formats.md).

Everything in it is sorted, so that the same pins are the same bytes, and two branches that add
different pins merge without a conflict more often than not.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from flyte_build.cas.atomic import replace_file
from flyte_build.errors import ImageBuildError

from .pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel
from .schema import Table, base, packages, python, step, title

T = TypeVar("T")
NAME = "flyte.lock"
FORMAT = 1
_MARKERS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
_HEAD = """\
# What the images of this project are made of, as it was resolved. Made by flyte; commit it.
# `flyte lock` completes it, `flyte lock --upgrade [NAME]` moves it.
"""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """All pins. `python` is the minor version meant by images that name none, "" if there is no
    such image.
    """

    python: str = ""
    bases: tuple[PinnedBase, ...] = ()
    packages: tuple[LockedPackages, ...] = ()
    steps: tuple[PinnedStep, ...] = ()

    def base(self, reference: str) -> PinnedBase | None:
        """The pin of a base."""
        return next((each for each in self.bases if each.reference == reference), None)

    def locked(self, wanted: Wanted) -> LockedPackages | None:
        """What was resolved for just that."""
        return next((each for each in self.packages if each.wanted == wanted), None)

    def _takes(self, new: PinnedBase) -> bool:
        """Whether a base is not pinned yet, or just its Python is not known."""
        old = self.base(new.reference)
        return old is None or (old.digest == new.digest and not old.python)

    def step(self, key: str, platform: str) -> PinnedStep | None:
        """What executing something came to."""
        return next(
            (each for each in self.steps if (each.key, each.platform) == (key, platform)), None
        )

    def adding(self, other: Lock) -> Lock:
        """These pins and those of `other` that are not among them; but what was executed again
        takes the place of what is lost.
        """
        taken = [each for each in other.bases if self._takes(each)]
        completed = [self.base(each.reference) for each in taken]
        return replace(
            self,
            python=self.python or other.python,
            bases=(*(each for each in self.bases if each not in completed), *taken),
            packages=(
                *self.packages,
                *(each for each in other.packages if self.locked(each.wanted) is None),
            ),
            steps=(
                *(each for each in self.steps if other.step(each.key, each.platform) is None),
                *other.steps,
            ),
        )


def parse(text: str, path: str) -> Lock:
    """The pins that the text of a lock file holds. Raises `ImageBuildError`, which names `path` and
    the entry that is wrong.
    """
    import tomllib

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        if any(line.startswith(_MARKERS) for line in text.splitlines()):
            raise ImageBuildError(
                f"{path} holds a merge that is not finished",
                why="There are conflict markers in it.",
                hint=(
                    "Take either side (`git checkout --ours flyte.lock`), and run `flyte lock`: it"
                    " adds what is missing."
                ),
            ) from None
        raise _malformed(path, str(error)) from None
    version = document.get("version")
    if type(version) is int and version > FORMAT:
        raise ImageBuildError(
            f"{path} was written by a newer version of flyte-build",
            why=f"It has format {version}; this version knows {FORMAT}.",
            hint="Upgrade flyte-build.",
        )
    try:
        return _lock(document)
    except ValueError as error:
        raise _malformed(path, str(error)) from None


def _lock(document: Mapping[str, Any]) -> Lock:
    """The pins in a document. Raises `ValueError`, which names the entry that is wrong."""
    table = Table(document)
    if table.take("version", int, "number") != FORMAT:
        raise table.wrong("version", f"is not {FORMAT}")
    lock = Lock(
        python=python(table, ""),
        bases=_entries(table, "base", base, _of_base),
        packages=_entries(table, "packages", packages, _of_packages),
        steps=_entries(table, "step", step, _of_step),
    )
    table.end()
    return lock


def _entries(
    table: Table, name: str, read: Callable[[Any], T], identity: Callable[[T], tuple[str, ...]]
) -> tuple[T, ...]:
    """The entries `[[name]]` of a document, each of them once."""
    found: dict[tuple[str, ...], T] = {}
    for at, values in enumerate(table.tables(name, []), 1):
        where = f"[[{name}]] {title(values) or f'number {at}'}"
        try:
            entry = read(values)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if identity(entry) in found:
            raise ValueError(f"{where} is there twice")
        found[identity(entry)] = entry
    return tuple(found.values())


def _malformed(path: str, why: str) -> ImageBuildError:
    return ImageBuildError(
        f"{path} is not well-formed",
        why=f"{why}.",
        hint=(
            "Restore it (`git checkout flyte.lock`); or remove the entry, or the file, and run"
            " `flyte lock`: it adds what is missing."
        ),
    )


def dump(lock: Lock) -> str:
    """The text of the lock file that holds these pins, in the order of what they are for."""
    import tomlkit

    document = tomlkit.document()
    document["version"] = FORMAT
    if lock.python:
        document["python"] = lock.python
    _tables(document, "base", (_base_table(each) for each in sorted(lock.bases, key=_of_base)))
    _tables(
        document,
        "packages",
        (_packages_table(each) for each in sorted(lock.packages, key=_of_packages)),
    )
    steps = sorted(lock.steps, key=_of_step)
    _tables(
        document,
        "step",
        (
            {"key": each.key, "platform": each.platform, "digest": str(each.digest)}
            for each in steps
        ),
    )
    return _HEAD + tomlkit.dumps(document)


def _of_base(base: PinnedBase) -> tuple[str, ...]:
    return (base.reference,)


def _of_step(step: PinnedStep) -> tuple[str, ...]:
    return (step.key, step.platform)


def _of_packages(packages: LockedPackages) -> tuple[str, ...]:
    wanted = packages.wanted
    return (
        *wanted.requirements,
        "",
        wanted.python,
        wanted.platform,
        repr(sorted(wanted.options.items())),
        repr(sorted(wanted.files.items())),
    )


def _tables(document: Any, name: str, tables: Iterable[Mapping[str, Any]]) -> None:
    import tomlkit

    found = tomlkit.aot()
    for values in tables:
        table = tomlkit.table()
        table.update(values)
        found.append(table)
    if found:
        document[name] = found


def _base_table(base: PinnedBase) -> dict[str, Any]:
    known = {"python": base.python} if base.python else {}
    return {"reference": base.reference, "digest": str(base.digest), **known}


def _packages_table(packages: LockedPackages) -> dict[str, Any]:
    wanted = packages.wanted
    table: dict[str, Any] = {"requirements": list(wanted.requirements)}
    if wanted.files:
        table["files"] = _inline(
            {path: str(digest) for path, digest in sorted(wanted.files.items())}
        )
    if wanted.options:
        table["options"] = _inline(dict(sorted(wanted.options.items())))
    return {
        **table,
        "python": wanted.python,
        "platform": wanted.platform,
        "wheels": _lines(packages.wheels),
    }


def _lines(wheels: Iterable[Wheel]) -> Any:
    """An array with a line for each wheel, so that a change of one is a change of one line."""
    import tomlkit

    array = tomlkit.array()
    for wheel in wheels:
        size = {"size": wheel.size} if wheel.size else {}
        array.append(
            _inline(
                {
                    "name": wheel.name,
                    "version": wheel.version,
                    "url": wheel.url,
                    "sha256": wheel.digest.hex,
                    **size,
                }
            )
        )
    return array.multiline(True)


def _inline(values: Mapping[str, Any]) -> Any:
    import tomlkit

    table = tomlkit.inline_table()
    table.update(values)
    return table


def read(path: str) -> tuple[Lock, bytes]:
    """The lock file at `path`, and its bytes; no pins if there is none. Raises
    `ImageBuildError`.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return Lock(), b""
    except OSError as error:
        raise ImageBuildError(f"{path} cannot be read", why=error.strerror or str(error)) from None
    try:
        return parse(data.decode("utf-8"), path), data
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _malformed(path, f"It is no UTF-8 (at line {line})") from None


def write(path: str, lock: Lock) -> None:
    """Replace the lock file at once, so that nobody reads half of it. Raises `ImageBuildError` if
    it cannot be written.

    Hold the lock of its directory around it: what writers that were killed have left is removed.
    What would not be read again is not written: then the file that is there stays.
    """
    import tomllib

    try:
        text = dump(lock)
        data = text.encode()
        _lock(tomllib.loads(text))
    except ValueError as error:
        raise ImageBuildError(f"{path} cannot hold what was resolved", why=f"{error}.") from None
    for left in glob.glob(f"{glob.escape(path)}.{'[0-9a-f]' * 8}"):
        os.unlink(left)
    try:
        replace_file(path, data, mode=0o666)
    except OSError as error:
        raise ImageBuildError(
            f"{path} cannot be written",
            why=error.strerror or str(error),
            hint=(
                "What was resolved is kept there. Resolve where it can be written (`flyte lock`),"
                " and commit it."
            ),
        ) from None
