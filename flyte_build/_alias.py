"""The alias `flyte` of this package, and the package's directory.

This module depends on no other, and imports only what is needed: it runs at every worker's start.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # Type checkers know this name; importing `typing` would take too long.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = os.path.dirname(os.path.abspath(__file__))
"""Directory of `flyte_build` as it was imported: symbolic links are not resolved."""


class _Alias:
    """A finder and loader that imports `flyte.x` as the same module as `flyte_build.x`."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module below `flyte`."""
        if not name.startswith("flyte."):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, _Alias())  # type: ignore[arg-type]  # It has a loader's methods.

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its own name, and return it."""
        import importlib

        own = f"{__package__}.{spec.name.removeprefix('flyte.')}"
        try:
            module = importlib.import_module(own)
        except ModuleNotFoundError as error:
            if error.name != own:
                raise
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from None
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec, which the import system has replaced by the alias's.

        The module has been executed already.
        """
        module.__spec__ = self._spec


def install_alias() -> None:
    """Make `import flyte`, and the import of any module below it, import `flyte_build` instead."""
    sys.modules["flyte"] = sys.modules[__package__]
    if not any(finder is _Alias for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias)
