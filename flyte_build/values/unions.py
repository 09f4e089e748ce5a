"""`A | B` and `Optional`: a value is converted by the first member that accepts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .type import ABSENT, Mismatch, Type, Wire, from_document

_MEMBER, _VALUE = "$member", "$value"


class Union(Type):
    """A union of `members`. Its wire values are those of its members.

    The form of a wire value tells which member it belongs to. If it would also fit a member that is
    tried earlier (a string that is a date, in `date | str`), the wire value is marked with the
    number of its member: `{"$member": 1, "$value": ...}`.
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
        """Sample of the first member that has one."""
        return next((member.sample for member in self.inner if member.sample is not ABSENT), ABSENT)

    def takes(self, name: str) -> bool:
        """Whether a member is the scalar of that name, or a union that contains it."""
        return any(member.takes(name) for member in self.inner)

    def document(self) -> Wire:
        """Return `["union", member, ...]`."""
        return ["union", *(member.document() for member in self.inner)]

    def parse(self, text: str, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a string; "null" is None if that is a member.

        Raises `Mismatch`.
        """
        return self._first(lambda member, own: member.parse(text, own), text, default)

    def parse_all(self, texts: Sequence[str], default: Wire = ABSENT) -> Wire:
        """Return the wire value of an option that is given once or more. Raises `Mismatch`.

        If there are several members beside None, a single string is the whole value and not an
        item of an array.
        """
        if len(texts) == 1 and sum(member.name != "None" for member in self.inner) > 1:
            return self.parse(texts[0], default)
        return self._first(
            lambda member, own: member.parse_all(texts, own), " ".join(texts), default
        )

    def check(self, value: Any, default: Wire = ABSENT) -> Wire:
        """Return the wire value of a JSON value, which may be marked with the number of its member.

        Raises `Mismatch`.
        """
        if not _is_marked(value):
            return self._first(lambda member, own: member.check(value, own), value, default)
        at = value[_MEMBER]
        if type(at) is not int or not 0 <= at < len(self.inner):
            raise Mismatch(f"a number below {len(self.inner)}", at, f".{_MEMBER}")
        return self._marked(at, self.inner[at].check(value[_VALUE], self._own(at, default)))

    def fits(self, value: Any) -> bool:
        """Whether a JSON value has the outer form of a member, or is marked with one."""
        return _is_marked(value) or self._looks_like(value) is not None

    def load(self, wire: Wire) -> Any:
        """Return the object, converted by the member that the wire value belongs to.

        Raises `Mismatch`.
        """
        if _is_marked(wire):
            return self.inner[wire[_MEMBER]].load(wire[_VALUE])
        at = self._looks_like(wire)
        if at is None:
            raise Mismatch(self.name, wire)
        return self.inner[at].load(wire)

    def dump(self, value: Any) -> Wire:
        """Return the wire value of an object. Raises `Mismatch`."""
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
        # Numbers are tried as `int` or `float` first.
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
        """Return the default if it is a value of this member, else `ABSENT`."""
        if _is_marked(default):
            return default[_VALUE] if default[_MEMBER] == at else ABSENT
        return default if default is not ABSENT and self._looks_like(default) == at else ABSENT


def _is_marked(wire: Wire) -> bool:
    return isinstance(wire, dict) and wire.keys() == {_MEMBER, _VALUE}


def _sentence(member: Type, refusal: Mismatch) -> str:
    what = "is missing" if refusal.given is ABSENT else f"is not {refusal.expected}"
    place = f"{refusal.where.lstrip('. ')} {what}." if refusal.where else ""
    detail = " ".join(part for part in (place, refusal.reasons) if part)
    return f"Not {member}: {detail}" if detail else f"Not {member}."


def read(document: Wire, outer: Sequence[Type]) -> Type:
    """Return the type that a document describes."""
    return Union([from_document(member, outer) for member in document[1:]])
