"""Links from a task to other systems, and its documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Link(Protocol):
    """Base class of links from an action to another system, such as a page of its logs."""

    name: str
    icon_uri: str | None = None

    def get_link(
        self,
        run_name: str,
        project: str,
        domain: str,
        context: dict[str, str],
        parent_action_name: str,
        action_name: str,
        pod_name: str,
        **kwargs: Any,
    ) -> str:
        """Return the URL for an action."""
        ...


@dataclass(frozen=True)
class Documentation:
    """Description of a task, for its page in a web interface."""

    description: str
