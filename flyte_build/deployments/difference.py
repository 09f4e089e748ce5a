"""Differences between two deployments, in the terms in which tasks are declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from flyte_build.text.wording import printable
from flyte_build.values.type import from_document

from .document import Document

_ABSENT = "(none)"
# Sections and fields whose values are not shown, as they may be secret or long.
_UNTOLD = {"variables", "fields of its type", "declared image"}
_WORDS = {
    "short_name": "short name",
    "variable": "name in its module",
    "unannotated": "without annotations",
}
_SAID_ELSEWHERE = ("interface", "env_vars", "options", "function")

How = Literal["added", "removed", "changed"]
# Fields by section and name. A named group is added or removed as a whole.
_Groups = dict[tuple[str, str], dict[str, Any]]


class FieldChange(NamedTuple):
    """A difference of one field, in a `section` of a `task` ("" for the environment).

    `old` and `new` are JSON values; None if there is no value, or it must not be shown.
    """

    section: str
    task: str
    field: str
    how: How
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        name = (
            f"{self.task}: {self.field}"
            if self.task and self.field
            else self.field or f"task {self.task}"
        )
        old, new = _text(self.old), _text(self.new)
        shown = (
            f"{name} {self.how}"
            if self.how != "changed" or old == new
            else f"{name} {old} -> {new}"
        )
        return printable(shown)


def changes(old: Document, new: Document) -> list[FieldChange]:
    """Return the sorted differences between two documents.

    Of their code, only the way it is imported is compared; compare their trees for the files.
    """
    found = list(_compared("", _environment(old), _environment(new)))
    for task in old.tasks.keys() | new.tasks.keys():
        if task in old.tasks and task in new.tasks:
            before, after = old.tasks[task], new.tasks[task]
            found += _compared(task, _groups(before), _groups(after))
            found += _order(task, before["interface"]["inputs"], after["interface"]["inputs"])
        else:
            found.append(
                FieldChange("tasks", task, "", "added" if task in new.tasks else "removed")
            )
    return sorted(found, key=lambda change: change[:3])


def of_distributions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FieldChange]:
    """Return the differences between two hosts: distributions, Python's version, the platform."""
    before, after = (
        {**host, **(host.get("distributions") or {}), "distributions": None} for host in (old, new)
    )
    return list(_fields("packages", "", "", before, after))


def _compared(task: str, old: _Groups, new: _Groups) -> Iterator[FieldChange]:
    for section, name in old.keys() | new.keys():
        before, after = old.get((section, name)), new.get((section, name))
        if name and (before is None or after is None):
            yield FieldChange(section, task, name, "removed" if after is None else "added")
        else:
            yield from _fields(section, task, name, before or {}, after or {})


def _fields(
    section: str, task: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[FieldChange]:
    for field in sorted(old.keys() | new.keys()):
        before, after = old.get(field), new.get(field)
        if before != after:
            values = () if section in _UNTOLD or field in _UNTOLD else (before, after)
            yield FieldChange(
                section, task, ": ".join(part for part in (name, field) if part), "changed", *values
            )


def _order(
    task: str, old: list[Mapping[str, Any]], new: list[Mapping[str, Any]]
) -> Iterator[FieldChange]:
    """Yield a change of the order of common inputs, which matters if they are given by position."""
    before, after = [entry["name"] for entry in old], [entry["name"] for entry in new]
    both = [
        [name for name in names if name in before and name in after] for names in (before, after)
    ]
    if both[0] != both[1]:
        yield FieldChange("interface", task, "order of the inputs", "changed", *both)


def _environment(document: Document) -> _Groups:
    value, runtime, code = document.value, document.value["environment"], document.value["code"]
    image = f"{runtime['uri']}@{runtime['digest']}" if document.kind == "reference" else None
    settings = {
        "description": value["description"] or None,
        "depends on": value["depends_on"] or None,
        "file": code["file"],
    }
    built = runtime if document.kind == "image" else {}
    images = {
        f"image for {platform}": identity
        for platform, identity in built.get("platforms", {}).items()
    }
    packages = {
        name: version
        for wheels in built.get("packages", {}).values()
        for name, version, *_ in wheels
    }
    return {
        ("environment", ""): {
            "runs in": document.kind,
            "image": image,
            "declared image": value["image"],
            **images,
        },
        ("packages", ""): {"python": built.get("python"), **packages},
        ("settings", ""): {
            **settings,
            "import directories": code["roots"],
            "import directories at the end": code["last"],
        },
    }


def _groups(task: Mapping[str, Any]) -> _Groups:
    interface, options = task["interface"], dict(task["options"])
    resources = options.pop("resources", None) or {}
    others = {
        _WORDS.get(name, name): value for name, value in task.items() if name not in _SAID_ELSEWHERE
    }
    groups: _Groups = {
        ("interface", ""): {"description": interface["doc"] or None},
        ("resources", ""): dict(_flat(resources)),
        ("settings", ""): dict(_flat({**others, **options})),
    }
    for entry in interface["inputs"]:
        default = entry.get("default", entry["default_text"] or None)
        shown = {"default": default, "description": entry["doc"] or None}
        groups["interface", f"input {entry['name']}"] = {
            **_type(entry["type"], entry["schema"]),
            **shown,
        }
    for name, schema in interface["outputs"]:
        groups["interface", f"output {name}"] = _type(str(from_document(schema)), schema)
    for name, value in task["env_vars"].items():
        groups["variables", f"variable {name}"] = {"": value}
    return groups


def _type(name: str, schema: Any) -> dict[str, Any]:
    # Only types of classes have fields.
    return {"type": name, "fields of its type": None if schema == name else schema}


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{above}{name}.")
        elif each not in (None, "", []):
            yield f"{above}{name}", each


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
