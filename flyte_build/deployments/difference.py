"""What is different between two deployments, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flyte_build.types import from_document

from .document import Document

_ABSENT = "(none)"
_SECTIONS = {"interface": "interface", "env_vars": "variables"}


class Change(NamedTuple):
    """A field that is not the same: in which `section` it is, its name, and its two values as JSON values (None: it is not there)."""

    section: str
    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field}: {_text(self.old)} -> {_text(self.new)}"


def changes(old: Document, new: Document) -> list[Change]:
    """The fields of two documents that differ, sorted; of their code only how it is imported (a tree says itself how it differs)."""
    before, after = dict(_fields(old)), dict(_fields(new))
    names = sorted(before.keys() | after.keys())
    return [
        Change(section, field, before.get((section, field)), after.get((section, field)))
        for section, field in names
        if before.get((section, field)) != after.get((section, field))
    ]


def of_distributions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The distributions of two descriptions of a host that differ, and Python's version and the platform."""
    before, after = ({**host, **(host.get("distributions") or {}), "distributions": None} for host in (old, new))
    names = sorted(before.keys() | after.keys())
    return [Change("packages", name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _fields(document: Document) -> Iterator[tuple[tuple[str, str], Any]]:
    value = document.value
    for name in ("environment", "image"):
        yield from _flat("environment", name, value[name])
    yield from _flat("settings", "description", value["description"])
    yield from _flat("settings", "depends_on", value["depends_on"])
    yield from _flat("settings", "code", {name: each for name, each in value["code"].items() if name != "tree"})
    for function, task in document.tasks.items():
        yield ("tasks", function), "declared"
        for name, each in task.items():
            if name == "interface":
                each = _readable(each)
            elif name == "options":
                yield from _flat("resources", f"{function}.resources", each.get("resources"))
                each = {option: asked for option, asked in each.items() if option != "resources"}
            yield from _flat(_SECTIONS.get(name, "settings"), f"{function}.{name}", each)


def _readable(interface: Mapping[str, Any]) -> dict[str, Any]:
    """An interface by the names of its inputs and outputs, so that one field is one change."""
    inputs = {entry["name"]: {name: each for name, each in entry.items() if name != "name"} for entry in interface["inputs"]}
    outputs = {name: {"type": str(from_document(type)), "schema": type} for name, type in interface["outputs"]}
    for each in (*inputs.values(), *outputs.values()):
        if each["schema"] == each["type"]:  # As for all that is no class.
            del each["schema"]
    return {"inputs": inputs, "outputs": outputs, "doc": interface["doc"], "order": [entry["name"] for entry in interface["inputs"]]}


def _flat(section: str, name: str, value: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(section, f"{name}.{key}", each)
    elif value not in (None, "", []):
        yield (section, name), value


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
