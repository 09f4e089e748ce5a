"""Strict reading of the tables of flyte.lock (docs/formats.md, "flyte.lock").

Everything that would not be written in just this form is refused with a `ValueError`. Its message
does not contain values: a URL may hold a password.
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
_SHOWN = 80  # Characters of a name or a requirement in a message.


class Table:
    """A TOML table from which each value is taken once, by name and type.

    `end` refuses values that are left over. `what` names the table in messages.
    """

    def __init__(self, value: Any, what: str = "") -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what or 'it'} is not a table")
        self._left: dict[str, Any] = dict(value)
        self._of = f" of {what}" if what else ""

    def take(self, name: str, kind: type, called: str, default: Any = None) -> Any:
        """Return and remove the value under a name, or return the default.

        `called` is the type in messages, with its article. Raises `ValueError` if the value is
        missing or of another type.
        """
        value = self._left.pop(name, default)
        if value is None:
            raise ValueError(f"`{name}`{self._of} is missing")
        if type(value) is not kind:
            raise self.wrong(name, f"is not {called}")
        return value

    def text(self, name: str) -> str:
        """Take a string that is not empty."""
        value: str = self.take(name, str, "a string")
        if not value:
            raise self.wrong(name, "is empty")
        return value

    def matching(
        self, name: str, form: re.Pattern[str], called: str, default: str | None = None
    ) -> str:
        """Take a string that matches the pattern `form`, or the default."""
        value: str = self.take(name, str, "a string", default)
        if value != default and not form.fullmatch(value):
            raise self.wrong(name, f"is not {called}")
        return value

    def texts(self, name: str) -> list[str]:
        """Take a list of strings."""
        values: list[Any] = self.take(name, list, "a list of strings")
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, "is not a list of strings")
        return values

    def table(self, name: str) -> Table | None:
        """Take a table, or return None if there is none of that name."""
        return Table(self.take(name, dict, "a table"), f"`{name}`") if name in self._left else None

    def tables(self, name: str, default: list[Any] | None = None) -> list[Any]:
        """Take a list of values to be read as tables, or the default."""
        values: list[Any] = self.take(name, list, "a list of tables", default)
        return values

    def digest(self, name: str, prefix: str = "") -> Digest:
        """Take a digest; `prefix` is prepended to the string."""
        try:
            return Digest.parse(prefix + self.take(name, str, "a string"))
        except StoreError as error:
            raise self.wrong(name, f"is not a digest ({error.why})") from None

    def names(self) -> list[str]:
        """Return the names that are not taken yet."""
        return list(self._left)

    def end(self) -> None:
        """Refuse unknown names: their values would be lost when the file is written again."""
        if self._left:
            raise self.wrong(_short(next(iter(self._left))), "is not a known name")

    def wrong(self, name: str, what: str) -> ValueError:
        """Return the error for the value under a name."""
        return ValueError(f"`{_short(name)}`{self._of} {what}")


def base(value: Any) -> PinnedBase:
    """Read an entry of `[[base]]`."""
    table = Table(value)
    found = PinnedBase(
        reference=table.text("reference"), digest=table.digest("digest"), python=python(table, "")
    )
    table.end()
    return found


def step(value: Any) -> PinnedStep:
    """Read an entry of `[[step]]`."""
    table = Table(value)
    found = PinnedStep(
        key=table.digest("key"), platform=_platform(table), digest=table.digest("digest")
    )
    table.end()
    return found


def packages(value: Any) -> LockedPackages:
    """Read an entry of `[[packages]]`."""
    table = Table(value)
    requirements = table.texts("requirements")
    if not requirements or "" in requirements or requirements != sorted(set(requirements)):
        raise table.wrong("requirements", "must be sorted, without duplicates, and not empty")
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
        raise table.wrong("wheels", "must be sorted by name, with one wheel for each package")
    table.end()
    return LockedPackages(wanted=wanted, wheels=wheels)


def title(value: Any) -> str:
    """Return a title of an entry for messages, from what it pins; "" if it does not tell."""
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
    """Take the minor version of a Python."""
    return table.matching("python", _PYTHON, "a minor version of Python, such as 3.12", default)


def _platform(table: Table) -> str:
    return table.matching("platform", _PLATFORM, "a platform, such as linux/amd64")


def _files(table: Table | None) -> dict[str, Digest]:
    return {name: table.digest(name) for name in table.names()} if table else {}


def _options(table: Table | None) -> Mapping[str, Any]:
    """Read the options of the resolver, in the form of `requirements.merged`."""
    if table is None:
        return {}
    readers: dict[str, Callable[[str], Any]] = {
        "index_url": table.text,
        "extra_index_urls": table.texts,
        "pre": lambda name: table.take(name, bool, "a boolean"),
        "extra_args": table.texts,
    }
    found = {name: readers[name](name) for name in table.names() if name in readers}
    table.end()
    return found


def _wheel(value: Any, at: int) -> Wheel:
    name = value.get("name") if isinstance(value, dict) else None
    table = Table(value, f"the wheel {_short(name) if isinstance(name, str) and name else at}")
    wheel = Wheel(
        name=table.matching("name", _NAME, "a normalized package name, such as typing-extensions"),
        version=table.text("version"),
        url=table.text("url"),
        digest=table.digest("sha256", "sha256:"),
        size=table.take("size", int, "a number of bytes", 0),
    )
    if wheel.size < 0:
        raise table.wrong("size", "is not a number of bytes")
    if trouble := _address(wheel.url):
        raise table.wrong("url", trouble)
    if not _is_of(wheel):
        raise table.wrong("url", f"is not a wheel of {_short(wheel.name)} {_short(wheel.version)}")
    table.end()
    return wheel


def _address(url: str) -> str:
    """Return what is wrong with the URL or path of a wheel, or ""."""
    if "\0" in url:
        return "contains a null byte"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL"
    if parts.scheme in ("http", "https"):
        return (
            "contains a user name or a password"
            if "@" in parts.netloc
            else ""
            if parts.netloc
            else "has no host"
        )
    if parts.scheme == "file":
        return (
            ""
            if parts.netloc in ("", "..") and parts.path.startswith("/")
            else "must have the form file:///PATH"
        )  # `file://../` is accepted for compatibility.
    if parts.scheme:
        return "must be an http, https or file URL, or a path"
    outside = url.startswith("/") or os.path.normpath(url) != url or url.split("/")[0] == ".."
    return "leads outside the project" if outside else ""


def _is_of(wheel: Wheel) -> bool:
    """Whether a wheel's file name matches its package and version.

    See the PyPA specifications, "Binary distribution format".
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
