"""Results of read-only builds for images that would have to be built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyte_build.cas.encoding import Value
from flyte_build.graph.node import Made, Node, Outcome, Outcomes, Resolve


@dataclass(frozen=True)
class PlannedImage:
    """An image for one platform that is not on this machine, as a read-only build finds it.

    `nodes` are its outcomes, in order, with the reasons why they are missing.
    """

    nodes: Sequence[Outcome]

    @classmethod
    def of(cls, nodes: Sequence[Outcome], names: Sequence[str], why: str = "") -> PlannedImage:
        """Return a plan with these outcomes, followed by missing nodes with these names.

        `why` is the reason of the first missing one; by default, the node before it must be made
        first.
        """
        found = [*nodes]
        for name in names:
            if not why:
                last = found[-1]
                why = (
                    f"{last.node.kind} {last.node.name} must be"
                    f" {'fetched' if last.state == 'cached' else 'made'} first"
                )
            found.append(Outcome(_Unknown(name, ""), "missing", None, None, why))
            why = ""
        return cls(found)

    @property
    def is_elsewhere(self) -> bool:
        """Whether a remote cache has the image, so that nothing needs to be built."""
        return all(each.state == "cached" for each in self.nodes)


class _Unknown(Node):
    """Node of an image that cannot be looked up yet."""

    kind = "image"

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Raise `AssertionError`: the inputs are not known."""
        raise AssertionError("An unknown image has no inputs")

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Raise `AssertionError`: the node is never made."""
        raise AssertionError("An unknown image cannot be built")
