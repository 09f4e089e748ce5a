"""`A | B` and `Optional`: the first member that takes a value has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .type import ABSENT, Mismatch, Type, Wire, from_document

_MEMBER, _VALUE = "$member", "$value"


class Union(Type):
    """A union of `members`. Its wire is a member's; which one is meant follows from what it looks
    like.

    Where it looks like an earlier member's too (a text that is a date, in `date | str`), the wire
    says which one is meant: `{"$member": 1, "$value": ...}`.
    """

    def __init__(self, members: Sequence[Type]) -> None:
        super().__init__(" | ".join(map(str, members)))
        self.inner = members
        self.details = "; ".join(
            dict.fromkeys(member.details for member in members if member.details)
        )
        self.words = [word for member in members for word in member.words]
        self._order = self._beginning_with("None", range(len(members)))
        self._orders = {
            cls: self._beginning_with(cls.__name__, self._order) for cls in (int, float)
        }

    @property
    def sample(self) -> Wire:
        """A value of the first member that has one."""
        return next((member.sample for member in self.inner if member.sample is not ABSENT), ABSENT)

    def takes(self, name: str) -> bool:
        """Whether a member does."""
        return any(member.takes(name) for member in self.inner)

    def document(self) -> Wire:
        """`["union", member, ...]`."""
        return ["union", *(member.document() for member in self.inner)]

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """The wire of a text; "null" is None, if that is a member."""
        return self._first(lambda member, own: member.parse(text, own), text, default)

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """The same of an option that was given once or more; one text is an item only if it can be
        nothing else.
        """
        if len(texts) == 1 and sum(member.name != "None" for member in self.inner) > 1:
            return self.parse(texts[0], default)
        return self._first(
            lambda member, own: member.parse_all(texts, own), " ".join(texts), default
        )

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """The wire of a JSON value, which may say which member it means."""
        if not _is_marked(value):
            return self._first(lambda member, own: member.check(value, own), value, default)
        at = value[_MEMBER]
        if type(at) is not int or not 0 <= at < len(self.inner):
            raise Mismatch(f"a number below {len(self.inner)}", at, f".{_MEMBER}")
        return self._marked(at, self.inner[at].check(value[_VALUE], self._own(at, default)))

    def fits(self, value: Any) -> bool:
        """Whether it looks like a member's."""
        return _is_marked(value) or self._looks_like(value) is not None

    def load(self, wire: Wire) -> Any:
        """The object, by the member whose wire it is."""
        if _is_marked(wire):
            return self.inner[wire[_MEMBER]].load(wire[_VALUE])
        at = self._looks_like(wire)
        if at is None:
            raise Mismatch(self.name, wire)
        return self.inner[at].load(wire)

    def dump(self, value: Any) -> Wire:
        """The wire of an object."""
        return self._first(lambda member, own: member.dump(value), value, ABSENT)

    def _first(self, convert: Callable[[Type, Wire], Wire], value: Any, default: Wire) -> Wire:
        refusals: list[tuple[Type, Mismatch]] = []
        for at in self._tried(value):
            try:
                wire = convert(self.inner[at], self._own(at, default))
            except Mismatch as mismatch:
                refusals.append((self.inner[at], mismatch))
            else:
                return self._marked(at, wire)
        others = [refusal for refusal in refusals if refusal[0].name != "None"]
        if len(others) == 1:
            ((_, only),) = others
            raise Mismatch(
                only.expected if only.where else self.name, only.given, only.where, only.reasons
            )
        raise Mismatch(
            self.name, value, reasons=" ".join(_sentence(*refusal) for refusal in others)
        )

    def _tried(self, value: Any) -> list[int]:
        # A number is an `int` or a `float` before it is anything else.
        return self._orders.get(type(value), self._order)

    def _beginning_with(self, name: str, order: Iterable[int]) -> list[int]:
        return sorted(order, key=lambda at: self.inner[at].name != name)

    def _looks_like(self, wire: Wire) -> int | None:
        return next((at for at in self._tried(wire) if self.inner[at].fits(wire)), None)

    def _marked(self, at: int, wire: Wire) -> Wire:
        return (
            wire
            if not _is_marked(wire) and self._looks_like(wire) == at
            else {_MEMBER: at, _VALUE: wire}
        )

    def _own(self, at: int, default: Wire) -> Wire:
        """The default, if it is a value of this member."""
        if _is_marked(default):
            return default[_VALUE] if default[_MEMBER] == at else ABSENT
        return default if default is not ABSENT and self._looks_like(default) == at else ABSENT


def _is_marked(wire: Wire) -> bool:
    return isinstance(wire, dict) and wire.keys() == {_MEMBER, _VALUE}


def _sentence(member: Type, refusal: Mismatch) -> str:
    what = "is missing" if refusal.given is ABSENT else f"is no {refusal.expected}"
    place = f"{refusal.where.lstrip('. ')} {what}." if refusal.where else ""
    detail = " ".join(part for part in (place, refusal.reasons) if part)
    return f"Not {member}: {detail}" if detail else f"Not {member}."


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """The type that a document describes."""
    return Union([from_document(member, outer) for member in document[1:]])
