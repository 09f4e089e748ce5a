"""flyte.lock: the pins of one project, as a TOML file that is made to be committed and merged (docs/formats.md).

Everything in it is sorted, so that the same pins are the same bytes, and two branches that add different pins merge without a conflict
more often than not.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError, StoreError

from .pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel

NAME = "flyte.lock"
FORMAT = 1
_HEAD = """# What the images of this project are made of, as it was resolved. Made by flyte; commit it.
# `flyte lock` completes it, `flyte lock --upgrade [NAME]` moves it.
"""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """All pins. `python` is the minor version meant by images that name none, "" if there is no such image."""

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
        return next((each for each in self.steps if (each.key, each.platform) == (key, platform)), None)

    def adding(self, other: "Lock") -> "Lock":
        """These pins and those of `other` that are not among them; but what was executed again takes the place of what is lost."""
        taken = [each for each in other.bases if self._takes(each)]
        completed = [self.base(each.reference) for each in taken]
        return replace(
            self,
            python=self.python or other.python,
            bases=(*(each for each in self.bases if each not in completed), *taken),
            packages=(*self.packages, *(each for each in other.packages if self.locked(each.wanted) is None)),
            steps=(*(each for each in self.steps if other.step(each.key, each.platform) is None), *other.steps),
        )


def parse(text: str, path: str) -> Lock:
    """The pins that the text of a lock file holds. Raises `ImageBuildError`, which names `path`."""
    import tomllib

    try:
        document = tomllib.loads(text)
    except ValueError as error:
        if any(line.startswith(("<<<<<<<", ">>>>>>>")) for line in text.splitlines()):
            raise ImageBuildError(
                f"{path} holds a merge that is not finished",
                why="There are conflict markers in it.",
                hint="Take either side (`git checkout --ours flyte.lock`), and run `flyte lock`: it adds what is missing.",
            ) from None
        raise _malformed(path, str(error)) from None
    version = document.get("version")
    if isinstance(version, int) and version > FORMAT:
        raise ImageBuildError(
            f"{path} was written by a newer version of flyte-build",
            why=f"It has format {version}; this version knows {FORMAT}.",
            hint="Upgrade flyte-build.",
        )
    try:
        if version != FORMAT:
            raise ValueError("`version` is not 1")
        return Lock(
            python=_text(document.get("python", "")),
            bases=tuple(map(_base, document.get("base", ()))),
            packages=tuple(map(_packages, document.get("packages", ()))),
            steps=tuple(map(_step, document.get("step", ()))),
        )
    except KeyError as error:
        raise _malformed(path, f"{error.args[0]!r} is missing") from None
    except (ValueError, TypeError, AttributeError, StoreError) as error:
        raise _malformed(path, error.what if isinstance(error, StoreError) else str(error)) from None


def _malformed(path: str, why: str) -> ImageBuildError:
    return ImageBuildError(
        f"{path} is not well-formed", why=why, hint="Restore it (`git checkout flyte.lock`), or delete it and run `flyte lock`."
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _base(value: Mapping[str, Any]) -> PinnedBase:
    return PinnedBase(
        reference=_text(value["reference"]), digest=Digest.parse(_text(value["digest"])), python=_text(value.get("python", ""))
    )


def _packages(value: Mapping[str, Any]) -> LockedPackages:
    wanted = Wanted(
        requirements=tuple(map(_text, value["requirements"])),
        files={path: Digest.parse(_text(digest)) for path, digest in value.get("files", {}).items()},
        options=value.get("options", {}),
        python=_text(value["python"]),
        platform=_text(value["platform"]),
    )
    return LockedPackages(wanted=wanted, wheels=tuple(map(_wheel, value["wheels"])))


def _wheel(value: Mapping[str, Any]) -> Wheel:
    digest, size = Digest.parse(f"sha256:{value['sha256']}"), value.get("size", 0)
    if type(size) is not int or size < 0:
        raise ValueError(f"{size!r} is no size")
    return Wheel(name=_text(value["name"]), version=_text(value["version"]), url=_text(value["url"]), digest=digest, size=size)


def _step(value: Mapping[str, Any]) -> PinnedStep:
    return PinnedStep(key=_text(value["key"]), platform=_text(value["platform"]), digest=Digest.parse(_text(value["digest"])))


def dump(lock: Lock) -> str:
    """The text of the lock file that holds these pins."""
    import tomlkit

    document = tomlkit.document()
    document["version"] = FORMAT
    if lock.python:
        document["python"] = lock.python
    _tables(document, "base", (_base_table(each) for each in sorted(lock.bases, key=lambda each: each.reference)))
    _tables(document, "packages", (_packages_table(each) for each in sorted(lock.packages, key=_order)))
    steps = sorted(lock.steps, key=lambda each: (each.key, each.platform))
    _tables(document, "step", ({"key": each.key, "platform": each.platform, "digest": str(each.digest)} for each in steps))
    return _HEAD + tomlkit.dumps(document)


def _order(packages: LockedPackages) -> tuple[str, ...]:
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
        table["files"] = _inline({path: str(digest) for path, digest in sorted(wanted.files.items())})
    if wanted.options:
        table["options"] = _inline(dict(sorted(wanted.options.items())))
    return {**table, "python": wanted.python, "platform": wanted.platform, "wheels": _lines(packages.wheels)}


def _lines(wheels: Iterable[Wheel]) -> Any:
    """An array with a line for each wheel, so that a change of one is a change of one line."""
    import tomlkit

    array = tomlkit.array()
    for wheel in wheels:
        size = {"size": wheel.size} if wheel.size else {}
        array.append(_inline({"name": wheel.name, "version": wheel.version, "url": wheel.url, "sha256": wheel.digest.hex, **size}))
    return array.multiline(True)


def _inline(values: Mapping[str, Any]) -> Any:
    import tomlkit

    table = tomlkit.inline_table()
    table.update(values)
    return table


def read(path: str) -> tuple[Lock, bytes]:
    """The lock file at `path`, and its bytes; no pins if there is none. Raises `ImageBuildError`."""
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
        raise _malformed(path, str(error)) from None


@contextmanager
def alone(root: str) -> Iterator[None]:
    """Hold this around changing the lock file of a project, so that of two commands that do none is lost."""
    opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def write(path: str, lock: Lock) -> None:
    """Replace the lock file at once, so that nobody reads half of it. Raises `ImageBuildError` if it cannot be written."""
    temporary = f"{path}.{os.urandom(4).hex()}"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(dump(lock))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise ImageBuildError(
            f"{path} cannot be written",
            why=error.strerror or str(error),
            hint="What was resolved is kept there. Resolve where it can be written (`flyte lock`), and commit it.",
        ) from None
