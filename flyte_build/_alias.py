"""`import flyte` as another name of this package; and the directory that the package lies in.

Depends on nothing, and imports nothing that is not needed: every start of a worker passes here.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # As type checkers know it; `typing` itself is not worth its time here.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = os.path.dirname(os.path.abspath(__file__))
"""The directory of `flyte_build`, as it was imported: links in it are not resolved."""


class _Alias:
    """Finds `flyte.x` as the very module `flyte_build.x`."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that is loaded under its other name."""
        if not name.startswith("flyte."):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, _Alias())  # type: ignore[arg-type]  # A loader by its methods.

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, under its own name."""
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
        """It has run already; the import machinery has only put the alias's spec into it, which is
        taken back.
        """
        module.__spec__ = self._spec


def install_alias() -> None:
    """From now on `import flyte` is `import flyte_build`, for every module below it too."""
    sys.modules["flyte"] = sys.modules[__package__]
    if not any(finder is _Alias for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias)
