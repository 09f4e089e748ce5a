"""Types of the settings that environments and tasks have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from flyte_build.errors import DeclarationTypeError


def check_settings(environment: Any) -> None:
    """Raise `DeclarationTypeError` if a setting of an environment has a wrong type."""
    for name, (expected, is_right) in _SETTINGS.items():
        value = getattr(environment, name, None)
        if (value is not None or name == "name") and not is_right(value):
            raise _wrong_type(name, expected, value)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `DeclarationTypeError` if an option of a task has a wrong type.

    An option may also be None, and `reusable` also `"off"`.
    """
    for name, value in options.items():
        expected, is_right = _OPTIONS.get(name, _ANY)
        is_default = value is None or (name == "reusable" and value == "off")
        if not is_default and not is_right(value):
            raise _wrong_type(name, expected, value)


def _wrong_type(name: str, expected: str, value: Any) -> DeclarationTypeError:
    return DeclarationTypeError(f"{name} must be {expected}, not {value!r:.100}")


def _is(*classes: type | str) -> Callable[[Any], bool]:
    """Return a check for instances of `classes`; those named `module:class` are imported late."""

    def check(value: Any) -> bool:
        if isinstance(value, tuple(each for each in classes if isinstance(each, type))):
            return True
        for module, _, name in (each.partition(":") for each in classes if isinstance(each, str)):
            if isinstance(value, getattr(import_module(f"{__package__}.{module}"), name)):
                return True
        return False

    return check


def _all(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(check(each) for each in value)


def _any(*checks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(check(value) for check in checks)


_SECRET = _is(str, "secret:Secret")
_COMMON = {
    "env_vars": ("a dict", _is(Mapping)),
    "pod_template": ("a string or a flyte.PodTemplate", _is(str, "pod_template:PodTemplate")),
    "resources": ("a flyte.Resources", _is("resources:Resources")),
    "reusable": ("a flyte.ReusePolicy", _is("reuse_policy:ReusePolicy")),
    "secrets": ("a name, a flyte.Secret or a list of them", _any(_SECRET, _all(_SECRET))),
    "service_account": ("a string", _is(str)),
}
_SETTINGS = {
    "name": ("a string", _is(str)),
    "cache": ("a string, a bool or a flyte.Cache", _is(str, bool, "cache:Cache")),
    "depends_on": ("a list of environments", _is(list, tuple)),
    "description": ("a string", _is(str)),
    "image": ("a string or a flyte.Image", _is(str, "image:Image")),
    "include": ("a list of strings", _all(_is(str))),
    **_COMMON,
}
_LINK = _any(lambda value: hasattr(value, "get_link"))
_TRIGGER = _is("trigger:Trigger")
_OPTIONS = {
    "triggers": ("a flyte.Trigger or a list of them", _any(_TRIGGER, _all(_TRIGGER))),
    "links": ("a flyte.Link or a list of them", _any(_LINK, _all(_LINK))),
    **_COMMON,
}
_ANY = ("anything", lambda value: True)
