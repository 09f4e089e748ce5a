"""flyte-build: tasks in Python, prepared like a build. `import flyte` imports this module.

Names are imported on first use (PEP 562), so importing the module loads only what is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # Type checkers know this name; importing `typing` would take too long.
if TYPE_CHECKING:
    from typing import Any

    from ._version import __version__ as __version__
    from .builtin.condition import Condition as Condition
    from .builtin.condition import ConditionWebhook as ConditionWebhook
    from .builtin.condition import new_condition as new_condition
    from .declarations.automation import Cron as Cron
    from .declarations.automation import FixedRate as FixedRate
    from .declarations.automation import OnArtifact as OnArtifact
    from .declarations.cache import Cache as Cache
    from .declarations.cache import CachePolicy as CachePolicy
    from .declarations.context import ctx as ctx
    from .declarations.context import custom_context as custom_context
    from .declarations.context import get_custom_context as get_custom_context
    from .declarations.context import group as group
    from .declarations.device import AMD_GPU as AMD_GPU
    from .declarations.device import APPLE_SILICON as APPLE_SILICON
    from .declarations.device import GPU as GPU
    from .declarations.device import HABANA_GAUDI as HABANA_GAUDI
    from .declarations.device import TPU as TPU
    from .declarations.device import Device as Device
    from .declarations.device import DeviceClass as DeviceClass
    from .declarations.device import Neuron as Neuron
    from .declarations.environment import Environment as Environment
    from .declarations.environment import TaskEnvironment as TaskEnvironment
    from .declarations.image import Image as Image
    from .declarations.link import Documentation as Documentation
    from .declarations.link import Link as Link
    from .declarations.logger import logger as logger
    from .declarations.map import map as map
    from .declarations.pod_template import PodTemplate as PodTemplate
    from .declarations.resources import Backoff as Backoff
    from .declarations.resources import Resources as Resources
    from .declarations.resources import RetryStrategy as RetryStrategy
    from .declarations.resources import Timeout as Timeout
    from .declarations.reuse_policy import ReusePolicy as ReusePolicy
    from .declarations.secret import Secret as Secret
    from .declarations.task import Task as Task
    from .declarations.trace import trace as trace
    from .declarations.trigger import Trigger as Trigger
    from .declarations.trigger import TriggeredArtifact as TriggeredArtifact
    from .declarations.trigger import TriggeredPartition as TriggeredPartition
    from .declarations.trigger import TriggerTime as TriggerTime
    from .runner.worker.checkpoint import Checkpoint as Checkpoint
    from .runner.worker.checkpoint import latest_checkpoint as latest_checkpoint
    from .sdk.build import build as build
    from .sdk.build import build_images as build_images
    from .sdk.deploy import deploy as deploy
    from .sdk.init import current_domain as current_domain
    from .sdk.init import current_project as current_project
    from .sdk.init import init as init
    from .sdk.init import init_from_config as init_from_config
    from .sdk.run import rerun as rerun
    from .sdk.run import run as run
    from .sdk.run import run_python_script as run_python_script
    from .sdk.run import with_runcontext as with_runcontext
    from .sdk.runs import Run as Run

_PLACES = {
    "AMD_GPU": "declarations.device",
    "APPLE_SILICON": "declarations.device",
    "Backoff": "declarations.resources",
    "Cache": "declarations.cache",
    "CachePolicy": "declarations.cache",
    "Checkpoint": "runner.worker.checkpoint",
    "Condition": "builtin.condition",
    "ConditionWebhook": "builtin.condition",
    "Cron": "declarations.automation",
    "Device": "declarations.device",
    "DeviceClass": "declarations.device",
    "Documentation": "declarations.link",
    "Environment": "declarations.environment",
    "FixedRate": "declarations.automation",
    "GPU": "declarations.device",
    "HABANA_GAUDI": "declarations.device",
    "Image": "declarations.image",
    "Link": "declarations.link",
    "Neuron": "declarations.device",
    "OnArtifact": "declarations.automation",
    "PodTemplate": "declarations.pod_template",
    "Resources": "declarations.resources",
    "RetryStrategy": "declarations.resources",
    "ReusePolicy": "declarations.reuse_policy",
    "Run": "sdk.runs",
    "Secret": "declarations.secret",
    "TPU": "declarations.device",
    "Task": "declarations.task",
    "TaskEnvironment": "declarations.environment",
    "Timeout": "declarations.resources",
    "Trigger": "declarations.trigger",
    "TriggerTime": "declarations.trigger",
    "TriggeredArtifact": "declarations.trigger",
    "TriggeredPartition": "declarations.trigger",
    "__version__": "_version",
    "build": "sdk.build",
    "build_images": "sdk.build",
    "ctx": "declarations.context",
    "current_domain": "sdk.init",
    "current_project": "sdk.init",
    "custom_context": "declarations.context",
    "deploy": "sdk.deploy",
    "get_custom_context": "declarations.context",
    "group": "declarations.context",
    "init": "sdk.init",
    "init_from_config": "sdk.init",
    "latest_checkpoint": "runner.worker.checkpoint",
    "logger": "declarations.logger",
    "map": "declarations.map",
    "new_condition": "builtin.condition",
    "rerun": "sdk.run",
    "run": "sdk.run",
    "run_python_script": "sdk.run",
    "trace": "declarations.trace",
    "with_runcontext": "sdk.run",
}
_MODULES = ("durable", "errors", "models", "notify", "remote")

_NAMES = sorted([*_PLACES, *_MODULES, "version"])
if not TYPE_CHECKING:  # Type checkers cannot read a computed list; they see the imports above.
    __all__ = _NAMES


def version() -> str:
    """Return the version of flyte-build."""
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
