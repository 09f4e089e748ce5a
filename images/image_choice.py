"""The image that a task runs in, as far as it is known without looking into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipe import Recipe

_KEPT_ONLY = frozenset(("secret_mounts", "registry_secret", "install_project"))


class ImageChoice:
    """The image that a task runs in, by its JSON `value`: the interpreter at hand, one that a
    reference names, or one to be built.

    Its recipe is made when it is asked for, once.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def is_host(self) -> bool:
        """Whether no image is meant."""
        return bool(self.value == "auto")

    @property
    def reference(self) -> str | None:
        """The reference of an image that exists."""
        return self.value if isinstance(self.value, str) and not self.is_host else None

    @property
    def is_declared(self) -> bool:
        """Whether it is one to be built."""
        return not isinstance(self.value, str)

    @cached_property
    def text(self) -> str:
        """The one text of its value: two images of one text are the same."""
        return json.dumps(self.value, sort_keys=True)

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables of one to be built: they are the recipe's, and are known
        without it.
        """
        return dict(
            pair
            for step in self.value["steps"]
            if step["step"] == "env_vars"
            for pair in step["variables"]
        )

    @property
    def unused_options(self) -> list[str]:
        """The options of its declaration that are kept and that nothing acts on."""
        if not self.is_declared:
            return []
        return sorted(
            _KEPT_ONLY
            & {name for step in (self.value["base"], *self.value["steps"]) for name in step}
        )

    @cached_property
    def recipe(self) -> Recipe:
        """What it is made of. Raises `DeclarationError`."""
        from .recipe import Recipe

        return Recipe.of(self.value)
