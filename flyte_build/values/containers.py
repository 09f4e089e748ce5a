"""`list`, `set`, `frozenset`, `tuple` and `dict`: every element is converted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .type import ABSENT, Mismatch, Type, Wire, from_document, step

_CLASSES: dict[str, type] = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple}


class Array(Type):
    """Any number of items of one type. `kind` is the class's name; objects may also be of `others`,
    in which case they change class.
    """

    def __init__(self, kind: str, item: Type, others: tuple[type, ...] = ()) -> None:
        super().__init__(f"{kind}[{item}, ...]" if kind == "tuple" else f"{kind}[{item}]")
        self.kind, self.item, self.inner = kind, item, (item,)
        self._classes: tuple[type[Any], ...] = (_CLASSES[kind], *others)

    @property
    def sample(self) -> Wire:
        """Two items; of a set one."""
        item = self.item.sample
        return [] if item is ABSENT else [item] if "set" in self.kind else [item, item]

    def document(self) -> Wire:
        """`["list", item]`, and so on."""
        return [self.kind, self.item.document()]

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """One text may be all of it, as JSON or as a file's name; otherwise each text
        is an item.
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
        """The wire of a JSON array."""
        if not isinstance(value, list):
            raise Mismatch(self.name, value)
        return self._collected(
            [step(f"[{at}]", self.item.check, item) for at, item in enumerate(value)]
        )

    def fits(self, value: Any) -> bool:
        """Whether it is an array."""
        return isinstance(value, list)

    def load(self, wire: Wire) -> Any:
        """A list, set, frozenset or tuple."""
        return _CLASSES[self.kind](map(self.item.load, wire))

    def dump(self, value: Any) -> Wire:
        """An array; a set's is sorted, so that equal sets have one wire."""
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
    """`tuple[A, B]`: one item of each type."""

    def __init__(self, items: Sequence[Type]) -> None:
        super().__init__(f"tuple[{', '.join(map(str, items))}]")
        self.inner = items

    @property
    def sample(self) -> Wire:
        """One item of each."""
        items = [item.sample for item in self.inner]
        return ABSENT if ABSENT in items else items

    def document(self) -> Wire:
        """`["items", item, ...]`."""
        return ["items", *(item.document() for item in self.inner)]

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """One text is all of it; otherwise each text is an item."""
        if len(texts) == 1:
            return self.parse(texts[0])
        self._same_length(texts)
        return [
            step(f"[{at}]", item.parse, text)
            for at, (item, text) in enumerate(zip(self.inner, texts, strict=True))
        ]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON array."""
        return self._converted(value, list, lambda item, part: item.check(part))

    def fits(self, value: Any) -> bool:
        """Whether it is an array of this length."""
        return isinstance(value, list) and len(value) == len(self.inner)

    def load(self, wire: Wire) -> Any:
        """A tuple."""
        return tuple(item.load(part) for item, part in zip(self.inner, wire, strict=True))

    def dump(self, value: Any) -> Wire:
        """An array."""
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
    """`dict[key, value]`: an object, or an array of pairs where keys are no texts. Objects may also
    be of `others`.
    """

    def __init__(self, key: Type, value: Type, others: tuple[type, ...] = ()) -> None:
        super().__init__(f"dict[{key}, {value}]")
        self.key, self.value, self.inner = key, value, (key, value)
        self._classes: tuple[type[Any], ...] = (dict, *others)

    @property
    def sample(self) -> Wire:
        """One item."""
        key, value = self.key.sample, self.value.sample
        return (
            ABSENT if key is ABSENT else self._collected([] if value is ABSENT else [(key, value)])
        )

    def document(self) -> Wire:
        """`["dict", key, value]`."""
        return ["dict", self.key.document(), self.value.document()]

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON object, or of an array of pairs; a default's items are not taken."""
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
        """Whether it is an object or an array."""
        return isinstance(value, dict | list)

    def load(self, wire: Wire) -> Any:
        """A dict."""
        if isinstance(wire, dict):
            return {
                self.key.load(self.key.parse(name)): self.value.load(item)
                for name, item in wire.items()
            }
        return {self.key.load(name): self.value.load(item) for name, item in wire}

    def dump(self, value: Any) -> Wire:
        """An object, or an array of pairs."""
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
                reasons="Two of its keys mean the same.",
            )
        return found

    def _collected(self, pairs: Sequence[tuple[Wire, Wire]]) -> Wire:
        if self.key.is_key:
            return {key if isinstance(key, str) else json.dumps(key): item for key, item in pairs}
        return list({json.dumps(key, sort_keys=True): [key, item] for key, item in pairs}.values())


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """The type that a document describes."""
    kind, *inner = document
    types = [from_document(each, outer) for each in inner]
    if kind == "items":
        return Items(types)
    return Mapping(types[0], types[1]) if kind == "dict" else Array(kind, types[0])
