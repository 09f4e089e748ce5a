"""`PodTemplate`: the Kubernetes pod that a task runs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyte_build.errors import DeclarationError


@dataclass(frozen=True)
class PodTemplate:
    """A pod that a task runs in: a `kubernetes.client.V1PodSpec`, labels and annotations.

    The task runs in the container named `primary_container_name`.
    """

    pod_spec: Any = None
    primary_container_name: str = "primary"
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None

    @classmethod
    def from_spec(
        cls,
        pod_spec: Any,
        *,
        primary_container_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> PodTemplate:
        """Return a template from a pod's spec.

        The primary container is the only one, or the one named `primary`, unless its name is given.
        Raises `DeclarationError` if there is no such container.
        """
        names = [container.name for container in pod_spec.containers or ()]
        name = primary_container_name or (names[0] if len(names) == 1 else "primary")
        if name not in names:
            raise DeclarationError(
                f"No container named {name!r} in the pod's spec",
                why=f"It has: {', '.join(names) or 'none'}.",
                hint="Pass primary_container_name= to choose one.",
            )
        return cls(pod_spec, name, labels, annotations)
