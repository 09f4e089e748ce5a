"""flyte-build: tasks in Python, prepared like a build, run anywhere. `import flyte` gives this module.

Names are loaded when they are first used (PEP 562), so importing it costs nothing that is not needed.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # As type checkers know it; `typing` itself is not worth its time here.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from ._version import __version__ as __version__
    from .environment import TaskEnvironment as TaskEnvironment
    from .image import Image as Image
    from .resources import Backoff as Backoff
    from .resources import Cache as Cache
    from .resources import Resources as Resources
    from .resources import RetryStrategy as RetryStrategy
    from .resources import ReusePolicy as ReusePolicy
    from .resources import Secret as Secret
    from .resources import Timeout as Timeout
    from .runs import Run as Run
    from .sdk import build as build
    from .sdk import build_images as build_images
    from .sdk import current_domain as current_domain
    from .sdk import current_project as current_project
    from .sdk import deploy as deploy
    from .sdk import init as init
    from .sdk import init_from_config as init_from_config
    from .sdk import run as run
    from .sdk import with_runcontext as with_runcontext
    from .task import Task as Task

_PLACES = {
    "Backoff": "resources",
    "Cache": "resources",
    "Image": "image",
    "Resources": "resources",
    "RetryStrategy": "resources",
    "ReusePolicy": "resources",
    "Run": "runs",
    "Secret": "resources",
    "Task": "task",
    "TaskEnvironment": "environment",
    "Timeout": "resources",
    "__version__": "_version",
    "build": "sdk",
    "build_images": "sdk",
    "current_domain": "sdk",
    "current_project": "sdk",
    "deploy": "sdk",
    "init": "sdk",
    "init_from_config": "sdk",
    "run": "sdk",
    "with_runcontext": "sdk",
}
_MODULES = ("errors", "remote")

_NAMES = sorted([*_PLACES, *_MODULES, "version"])
if not TYPE_CHECKING:  # Type checkers read no computed list; they see the imports above.
    __all__ = _NAMES


def version() -> str:
    """The version of flyte-build."""
    from ._version import __version__

    return __version__


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _PLACES:
        raise AttributeError(f"module 'flyte' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return _NAMES


class _Alias:
    """Finds `flyte.x` as the very module `flyte_build.x`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a module that is loaded under its other name."""
        if not name.startswith("flyte."):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, _Alias())  # type: ignore[arg-type]  # A loader by its methods.

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, under its own name."""
        import importlib

        own = f"{__name__}.{spec.name.removeprefix('flyte.')}"
        try:
            module = importlib.import_module(own)
        except ModuleNotFoundError as error:
            if error.name != own:
                raise
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from None
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; the import machinery has only put the alias's spec into it, which is taken back."""
        module.__spec__ = self._spec


def install_alias() -> None:
    """From now on `import flyte` is `import flyte_build`, for every module below it too."""
    sys.modules["flyte"] = sys.modules[__name__]
    if not any(finder is _Alias for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias)
