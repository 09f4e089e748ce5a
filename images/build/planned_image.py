"""What a read-only build finds of an image that is not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyte_build.cas.encoding import Value
from flyte_build.graph.node import Made, Node, Outcome, Outcomes, Resolve


@dataclass(frozen=True)
class PlannedImage:
    """An image for one platform that is not here, as a read-only build finds it: its nodes, in
    order, with why they are missing.
    """

    nodes: Sequence[Outcome]

    @classmethod
    def of(cls, nodes: Sequence[Outcome], names: Sequence[str], why: str = "") -> PlannedImage:
        """An image of which these nodes were looked up, and those of these names could not be:
        `why`, if not for the one before.
        """
        found = [*nodes]
        for name in names:
            if not why:
                last = found[-1]
                why = (
                    f"{last.node.kind} {last.node.name} must be"
                    f" {'fetched' if last.state == 'cached' else 'made'} first"
                )
            found.append(Outcome(_Unknown(name, ""), "missing", None, None, why, 0.0, []))
            why = ""
        return cls(found)

    @property
    def is_elsewhere(self) -> bool:
        """Whether others have it, so that nothing has to be made."""
        return all(each.state == "cached" for each in self.nodes)


class _Unknown(Node):
    """An image that cannot be looked up yet."""

    kind = "image"

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """They are not known."""
        raise AssertionError("It cannot be looked up")

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """It is never made."""
        raise AssertionError("It cannot be looked up")
