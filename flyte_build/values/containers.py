"""`list`, `set`, `frozenset`, `tuple` and `dict`, whose elements are converted one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .type import ABSENT, Mismatch, Type, Wire, from_document, step

_CLASSES: dict[str, type] = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple}


class Array(Type):
    """Any number of items of one type.

    `kind` is the name of the class. `dump` also accepts objects of the classes in `others`, which
    `load` returns as objects of the first class.
    """

    def __init__(self, kind: str, item: Type, others: tuple[type, ...] = ()) -> None:
        super().__init__(f"{kind}[{item}, ...]" if kind == "tuple" else f"{kind}[{item}]")
        self.kind, self.item, self.inner = kind, item, (item,)
        self._classes: tuple[type[Any], ...] = (_CLASSES[kind], *others)

    @property
    def sample(self) -> Wire:
        """Array of two items, or of one for a set."""
        item = self.item.sample
        return [] if item is ABSENT else [item] if "set" in self.kind else [item, item]

    def document(self) -> Wire:
        """Return `[kind, item]`, such as `["list", "int"]`."""
        return [self.kind, self.item.document()]

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """Return the wire value of an option that is given once or more. Raises `Mismatch`.

        A single string may be the whole array, as JSON or as the name of a file; otherwise each
        string is an item.
        """
        if len(texts) == 1 and self._is_whole(texts[0]):
            return self.parse(texts[0])
        return self._collected(
            [step(f"[{at}]", self.item.parse, text) for at, text in enumerate(texts)]
        )

    def _is_whole(self, text: str) -> bool:
        from .documents import names_file

        return text[:1] == "[" or (names_file(text) and not self.item.is_file)

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON array. Raises `Mismatch`."""
        if not isinstance(value, list):
            raise Mismatch(self.name, value)
        return self._collected(
            [step(f"[{at}]", self.item.check, item) for at, item in enumerate(value)]
        )

    def fits(self, value: Any) -> bool:
        """Whether a JSON value is an array."""
        return isinstance(value, list)

    def load(self, wire: Wire) -> Any:
        """Return a list, set, frozenset or tuple."""
        return _CLASSES[self.kind](map(self.item.load, wire))

    def dump(self, value: Any) -> Wire:
        """Return an array, sorted for sets so that equal sets have equal wire values.

        Raises `Mismatch`.
        """
        if not isinstance(value, self._classes):
            raise Mismatch(self.name, value)
        return self._collected(
            [step(f"[{at}]", self.item.dump, item) for at, item in enumerate(value)]
        )

    def _collected(self, items: list[Wire]) -> list[Wire]:
        if "set" not in self.kind:
            return items
        by_text = {json.dumps(item, sort_keys=True): item for item in items}
        return [by_text[text] for text in sorted(by_text)]


class Items(Type):
    """`tuple[A, B]`: a fixed number of items, each with a type of its own."""

    def __init__(self, items: Sequence[Type]) -> None:
        super().__init__(f"tuple[{', '.join(map(str, items))}]")
        self.inner = items

    @property
    def sample(self) -> Wire:
        """Array of one item of each type."""
        items = [item.sample for item in self.inner]
        return ABSENT if ABSENT in items else items

    def document(self) -> Wire:
        """Return `["items", item, ...]`."""
        return ["items", *(item.document() for item in self.inner)]

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """Return the wire value of an option that is given once or more. Raises `Mismatch`.

        A single string is the whole array; otherwise each string is an item.
        """
        if len(texts) == 1:
            return self.parse(texts[0])
        self._same_length(texts)
        return [
            step(f"[{at}]", item.parse, text)
            for at, (item, text) in enumerate(zip(self.inner, texts, strict=True))
        ]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON array. Raises `Mismatch`."""
        return self._converted(value, list, lambda item, part: item.check(part))

    def fits(self, value: Any) -> bool:
        """Whether a JSON value is an array of this length."""
        return isinstance(value, list) and len(value) == len(self.inner)

    def load(self, wire: Wire) -> Any:
        """Return a tuple."""
        return tuple(item.load(part) for item, part in zip(self.inner, wire, strict=True))

    def dump(self, value: Any) -> Wire:
        """Return an array. Raises `Mismatch`."""
        return self._converted(value, tuple, lambda item, part: item.dump(part))

    def _converted(self, value: Any, cls: type[Any], convert: Callable[[Type, Any], Wire]) -> Wire:
        if not isinstance(value, cls):
            raise Mismatch(self.name, value)
        self._same_length(value)
        return [
            step(f"[{at}]", convert, item, part)
            for at, (item, part) in enumerate(zip(self.inner, value, strict=True))
        ]

    def _same_length(self, value: Sequence[Any]) -> None:
        if len(value) != len(self.inner):
            raise Mismatch(self.name, value, reasons=f"It has {len(value)} items.")


class Mapping(Type):
    """`dict[key, value]`: a JSON object, or an array of pairs if the keys are not an `is_key` type.

    `dump` also accepts objects of the classes in `others`; `load` returns a dict.
    """

    def __init__(self, key: Type, value: Type, others: tuple[type, ...] = ()) -> None:
        super().__init__(f"dict[{key}, {value}]")
        self.key, self.value, self.inner = key, value, (key, value)
        self._classes: tuple[type[Any], ...] = (dict, *others)

    @property
    def sample(self) -> Wire:
        """Wire value with one item."""
        key, value = self.key.sample, self.value.sample
        return (
            ABSENT if key is ABSENT else self._collected([] if value is ABSENT else [(key, value)])
        )

    def document(self) -> Wire:
        """Return `["dict", key, value]`."""
        return ["dict", self.key.document(), self.value.document()]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON object or an array of pairs. Raises `Mismatch`.

        Items of the default are not merged in.
        """
        if isinstance(value, dict) and (self.key.is_key or not value):
            return self._converted(list(value.items()), self.key.parse, self.value.check)
        if isinstance(value, list) and all(
            isinstance(pair, list) and len(pair) == 2 for pair in value
        ):
            return self._converted(value, self.key.check, self.value.check)
        raise Mismatch(
            self.name, value, reasons="" if self.key.is_key else "Give [[key, value], ...]."
        )

    def fits(self, value: Any) -> bool:
        """Whether a JSON value is an object or an array."""
        return isinstance(value, dict | list)

    def load(self, wire: Wire) -> Any:
        """Return a dict."""
        if isinstance(wire, dict):
            return {
                self.key.load(self.key.parse(name)): self.value.load(item)
                for name, item in wire.items()
            }
        return {self.key.load(name): self.value.load(item) for name, item in wire}

    def dump(self, value: Any) -> Wire:
        """Return an object or an array of pairs. Raises `Mismatch`."""
        if not isinstance(value, self._classes):
            raise Mismatch(self.name, value)
        return self._converted(list(value.items()), self.key.dump, self.value.dump)

    def _converted(
        self, pairs: Sequence[Any], as_key: Callable[[Any], Wire], as_value: Callable[[Any], Wire]
    ) -> Wire:
        found = self._collected(
            [
                (step(f" key {key!r}", as_key, key), step(f"[{key!r}]", as_value, item))
                for key, item in pairs
            ]
        )
        if len(found) < len(pairs):
            raise Mismatch(
                f"{self.name} with different keys",
                [key for key, _ in pairs],
                reasons="Two of its keys are equal.",
            )
        return found

    def _collected(self, pairs: Sequence[tuple[Wire, Wire]]) -> Wire:
        if self.key.is_key:
            return {key if isinstance(key, str) else json.dumps(key): item for key, item in pairs}
        return list({json.dumps(key, sort_keys=True): [key, item] for key, item in pairs}.values())


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """Return the type that a document describes."""
    kind, *inner = document
    types = [from_document(each, outer) for each in inner]
    if kind == "items":
        return Items(types)
    return Mapping(types[0], types[1]) if kind == "dict" else Array(kind, types[0])
