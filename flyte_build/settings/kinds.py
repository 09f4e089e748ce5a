"""Kinds of settings: their valid values, and conversion from and to TOML and strings."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from flyte_build.cas.registry.name import RepositoryName


T = TypeVar("T")


class Kind(Generic[T]):
    """A set of valid values: `expected` describes them, `example` is one of them in TOML.

    `read` converts a TOML value to a value of the setting, and `parse` a string to a TOML value
    (both raise `ValueError`); `show` converts a value of the setting to TOML. `choices` are all
    valid values as strings, if there are few.
    """

    def __init__(
        self,
        expected: str,
        example: str,
        read: Callable[[Any], T],
        *,
        parse: Callable[[str], Any] = str,
        show: Callable[[T], Any] = lambda value: value,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.expected, self.example, self.read, self.parse, self.show, self.choices = (
            expected,
            example,
            read,
            parse,
            show,
            choices,
        )


def _of(kind: type[T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        if type(value) is not kind:
            raise ValueError(value)
        return value

    return read


def _count(value: Any, least: int = 1) -> int:
    if _of(int)(value) < least:
        raise ValueError(value)
    return int(value)


def _flag(text: str) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    return words[text.lower()] if text.lower() in words else _of(bool)(text)


def _list(text: str) -> Any:
    return (
        json.loads(text)
        if text.lstrip().startswith("[")
        else [part.strip() for part in text.split(",") if part.strip()]
    )


def _paths(value: Any) -> frozenset[str]:
    return frozenset(_of(str)(path).lstrip("/") for path in _of(list)(value))


def _references(value: Any) -> dict[str, str]:
    return {name: _of(str)(reference) for name, reference in _of(dict)(value).items()}


def _pairs(text: str) -> Any:
    return (
        json.loads(text)
        if text.lstrip().startswith("{")
        else dict(pair.strip().split("=", 1) for pair in text.split(","))
    )


def _duration(value: Any) -> float:
    from flyte_build.text.units import parse_timedelta

    seconds = parse_timedelta(value).total_seconds() if isinstance(value, str) else value
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise ValueError(value)
    return float(seconds)


def _duration_text(seconds: float) -> str:
    for name, unit in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds and seconds % unit == 0:
            return f"{seconds / unit:g} {name if seconds != unit else name[:-1]}"
    return f"{seconds:g} s"


def _size(value: Any) -> int:
    from flyte_build.text.units import parse_size

    size = parse_size(value) if isinstance(value, str) else _of(int)(value)
    if size < 0:
        raise ValueError(value)
    return size


def _size_text(size: int) -> str:
    from flyte_build.text.units import size_text

    return size_text(size)


def _repository(value: Any) -> RepositoryName | None:
    from flyte_build.cas.registry.name import RepositoryName

    return RepositoryName.parse(value) if _of(str)(value) else None


def _repositories(value: Any) -> tuple[RepositoryName, ...]:
    return tuple(filter(None, map(_repository, _of(list)(value))))


def choice(*names: T) -> Kind[T]:
    def read(value: Any) -> T:
        return names[names.index(value)]

    texts = tuple(map(str, names))
    return Kind(f"one of {', '.join(texts)}", json.dumps(texts[0]), read, choices=texts)


TEXT: Kind[str] = Kind("a string", '"name"', _of(str))


FLAG: Kind[bool] = Kind("true or false", "true", _of(bool), parse=_flag, choices=("true", "false"))


COUNT: Kind[int] = Kind("a positive integer", "1000", _count, parse=int)
NATURAL: Kind[int] = Kind("an integer of 0 or more", "3", lambda value: _count(value, 0), parse=int)


PATHS: Kind[frozenset[str]] = Kind(
    "a list of paths", '["tests/fake.pem"]', _paths, parse=_list, show=sorted
)


DURATION: Kind[float] = Kind(
    'a duration: "14 days", "PT1H30M", or seconds', '"14 days"', _duration, show=_duration_text
)


SIZE: Kind[int] = Kind('a size: "20 GB", "512 MiB", or bytes', '"20 GB"', _size, show=_size_text)


LIMIT: Kind[int | None] = Kind(
    'a size ("20 GB", "512 MiB", or bytes), or "none"',
    '"20 GB"',
    lambda value: None if value == "none" else _size(value),
    show=lambda value: "none" if value is None else _size_text(value),
)


_REPOSITORY = '"registry.example.com/team/cache", or "oci:/srv/cache" for a directory'


REPOSITORY: Kind[RepositoryName | None] = Kind(
    f"a repository: {_REPOSITORY}; empty for none",
    '"registry.example.com/team/cache"',
    _repository,
    show=lambda name: name.text if name else "",
)


REPOSITORIES: Kind[tuple[RepositoryName, ...]] = Kind(
    f"a list of repositories: {_REPOSITORY}",
    '["registry.example.com/team/cache"]',
    _repositories,
    parse=_list,
    show=lambda names: [name.text for name in names],
)


REFERENCES: Kind[dict[str, str]] = Kind(
    "a table of image references",
    '{ name = "registry.example.com/team/image:v1" }',
    _references,
    parse=_pairs,
)
