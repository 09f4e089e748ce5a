"""The tables of flyte.lock, read strictly: all that is not as it would be written is refused
(docs/formats.md, "flyte.lock").

What is wrong is raised as a `ValueError` that says so, without the values: an address may hold a
password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from flyte_build.cas.digest import Digest
from flyte_build.errors import StoreError
from flyte_build.text.wording import listed, printable

from .pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel

_PYTHON = re.compile(r"[1-9][0-9]*\.[0-9]+")
_PLATFORM = re.compile(r"[a-z0-9]+/\w+", re.ASCII)
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_SHOWN = 80  # Signs of a name or a requirement in a sentence.


class Table:
    """A table of TOML, from which every value is taken once, by its type; `end` refuses what is
    left. `what` it is begins sentences.
    """

    def __init__(self, value: Any, what: str = "") -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what or 'it'} is no table")
        self._left: dict[str, Any] = dict(value)
        self._of = f" of {what}" if what else ""

    def take(self, name: str, kind: type, called: str, default: Any = None) -> Any:
        """The value under a name, or the default where there is one."""
        value = self._left.pop(name, default)
        if value is None:
            raise ValueError(f"`{name}`{self._of} is missing")
        if type(value) is not kind:
            raise self.wrong(name, f"is no {called}")
        return value

    def text(self, name: str) -> str:
        """A text that is not empty."""
        value: str = self.take(name, str, "text")
        if not value:
            raise self.wrong(name, "is empty")
        return value

    def matching(
        self, name: str, form: re.Pattern[str], called: str, default: str | None = None
    ) -> str:
        """A text of a form, or the default."""
        value: str = self.take(name, str, "text", default)
        if value != default and not form.fullmatch(value):
            raise self.wrong(name, f"is no {called}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        values: list[Any] = self.take(name, list, "list of texts")
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, "is no list of texts")
        return values

    def table(self, name: str) -> Table | None:
        """A table, if there is one of that name."""
        return Table(self.take(name, dict, "table"), f"`{name}`") if name in self._left else None

    def tables(self, name: str, default: list[Any] | None = None) -> list[Any]:
        """A list of what should be tables, or the default."""
        values: list[Any] = self.take(name, list, "list of tables", default)
        return values

    def digest(self, name: str, prefix: str = "") -> Digest:
        """A digest; `prefix` stands before the text."""
        try:
            return Digest.parse(prefix + self.take(name, str, "text"))
        except StoreError as error:
            raise self.wrong(name, f"is not a digest ({error.why})") from None

    def names(self) -> list[str]:
        """What is not taken yet."""
        return list(self._left)

    def end(self) -> None:
        """Refuse what was not asked for: it would be lost when the file is written again."""
        if self._left:
            raise self.wrong(_short(next(iter(self._left))), "is no name that is known here")

    def wrong(self, name: str, what: str) -> ValueError:
        """The error for the value under a name."""
        return ValueError(f"`{_short(name)}`{self._of} {what}")


def base(value: Any) -> PinnedBase:
    """A table of `[[base]]`."""
    table = Table(value)
    found = PinnedBase(
        reference=table.text("reference"), digest=table.digest("digest"), python=python(table, "")
    )
    table.end()
    return found


def step(value: Any) -> PinnedStep:
    """A table of `[[step]]`."""
    table = Table(value)
    found = PinnedStep(
        key=table.digest("key"), platform=_platform(table), digest=table.digest("digest")
    )
    table.end()
    return found


def packages(value: Any) -> LockedPackages:
    """A table of `[[packages]]`."""
    table = Table(value)
    requirements = table.texts("requirements")
    if not requirements or "" in requirements or requirements != sorted(set(requirements)):
        raise table.wrong("requirements", "must name something, sorted, and everything once")
    wanted = Wanted(
        requirements=tuple(requirements),
        files=_files(table.table("files")),
        options=_options(table.table("options")),
        python=python(table),
        platform=_platform(table),
    )
    wheels = tuple(_wheel(each, at) for at, each in enumerate(table.tables("wheels"), 1))
    names = [wheel.name for wheel in wheels]
    if names != sorted(set(names)):
        raise table.wrong("wheels", "must be sorted by name, with one of each package")
    table.end()
    return LockedPackages(wanted=wanted, wheels=wheels)


def title(value: Any) -> str:
    """What a table pins, as far as it says so: to be found by, if it is wrong."""
    if not isinstance(value, dict):
        return ""
    texts = value.get("requirements", [value.get("reference", value.get("key"))])
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return ""
    about = [
        f"{before}{value[name]}"
        for name, before in (("python", "Python "), ("platform", ""))
        if isinstance(value.get(name), str)
    ]
    return _short(listed(map(_short, texts), 3)) + (
        f" ({_short(', '.join(about))})" if about else ""
    )


def python(table: Table, default: str | None = None) -> str:
    """The minor version of a Python."""
    return table.matching("python", _PYTHON, "minor version of Python, such as 3.12", default)


def _platform(table: Table) -> str:
    return table.matching("platform", _PLATFORM, "platform, such as linux/amd64")


def _files(table: Table | None) -> dict[str, Digest]:
    return {name: table.digest(name) for name in table.names()} if table else {}


def _options(table: Table | None) -> Mapping[str, Any]:
    """The options of the resolver, as `requirements.merged` makes them."""
    if table is None:
        return {}
    readers: dict[str, Callable[[str], Any]] = {
        "index_url": table.text,
        "extra_index_urls": table.texts,
        "pre": lambda name: table.take(name, bool, "boolean"),
        "extra_args": table.texts,
    }
    found = {name: readers[name](name) for name in table.names() if name in readers}
    table.end()
    return found


def _wheel(value: Any, at: int) -> Wheel:
    name = value.get("name") if isinstance(value, dict) else None
    table = Table(value, f"the wheel {_short(name) if isinstance(name, str) and name else at}")
    wheel = Wheel(
        name=table.matching(
            "name", _NAME, "name of a package as indexes write it, such as typing-extensions"
        ),
        version=table.text("version"),
        url=table.text("url"),
        digest=table.digest("sha256", "sha256:"),
        size=table.take("size", int, "number of bytes", 0),
    )
    if wheel.size < 0:
        raise table.wrong("size", "is no number of bytes")
    if trouble := _address(wheel.url):
        raise table.wrong("url", trouble)
    if not _is_of(wheel):
        raise table.wrong("url", f"is no wheel of {_short(wheel.name)} {_short(wheel.version)}")
    table.end()
    return wheel


def _address(url: str) -> str:
    """What is wrong with the address of a wheel, or ""."""
    if "\0" in url:
        return "holds a zero byte"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is no address"
    if parts.scheme in ("http", "https"):
        return (
            "holds a user or a password"
            if "@" in parts.netloc
            else ""
            if parts.netloc
            else "names no host"
        )
    if parts.scheme == "file":
        return (
            "" if parts.netloc in ("", "..") and parts.path.startswith("/") else "names a host"
        )  # `file://../` is read, as it was written.
    if parts.scheme:
        return "is neither http, https, file nor a path"
    outside = url.startswith("/") or os.path.normpath(url) != url or url.split("/")[0] == ".."
    return "leads out of the project" if outside else ""


def _is_of(wheel: Wheel) -> bool:
    """Whether a wheel's file name is that of the package and the version (PyPA specifications,
    "Binary distribution format").
    """
    from packaging.version import InvalidVersion, Version

    name, *rest = wheel.filename.removesuffix(".whl").split("-")
    if (
        not wheel.filename.endswith(".whl")
        or len(rest) not in (4, 5)
        or re.sub(r"[-_.]+", "-", name).lower() != wheel.name
    ):
        return False
    try:
        version = Version(wheel.version)
        return str(version) == wheel.version and Version(rest[0]) == version
    except InvalidVersion:
        return False


def _short(text: str) -> str:
    text = printable(text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
