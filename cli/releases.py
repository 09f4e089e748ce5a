"""Output of `flyte get task` and `flyte get deployment`: lists, and details of a version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flyte_build.deployments.catalogue import FoundRelease
from flyte_build.deployments.document import Document
from flyte_build.deployments.names import DeploymentReference
from flyte_build.errors import NotFound, UsageError
from flyte_build.ops.deployed_task import find_task
from flyte_build.ops.releases import Deployments
from flyte_build.ops.session import Session
from flyte_build.text.wording import printable

from .console import Console


def list_tasks(
    console: Console, session: Session, limit: int, name: str | None, version: str | None
) -> None:
    """Print the deployed tasks, or the versions of one; with a version, its details."""
    deployments = Deployments(session)
    text = _joined(name, version)
    reference, function = DeploymentReference.parse_task(text) if text else (None, "")
    if reference and (reference.version or reference.pin):
        task = find_task(deployments, text)
        _show(
            console,
            task.found,
            task.document,
            f"{task.document.name}.{task.function}",
            [task.function],
        )
        return
    found = deployments.releases(reference.environment if reference else None)
    rows = [
        (f"{each.release.environment}.{task}", each)
        for each in found
        for task in each.release.tasks
        if function in ("", task)
    ]
    if text and not rows:
        find_task(deployments, text)
        raise NotFound(f"{text} is not deployed")
    _list(console, rows[:limit])


def list_deployments(
    console: Console, session: Session, limit: int, name: str | None, version: str | None
) -> None:
    """Print the deployed environments, or the versions of one; with a version, its details."""
    deployments = Deployments(session)
    text = _joined(name, version)
    reference = DeploymentReference.parse(text) if text else None
    if reference and (reference.version or reference.pin):
        found, document = deployments.find(reference)
        _show(console, found, document, document.name, sorted(document.tasks))
        return
    releases = deployments.releases(reference.environment if reference else None)
    if reference and not releases:
        deployments.find(reference)
    _list(console, [(each.release.environment, each) for each in releases[:limit]])


def _joined(name: str | None, version: str | None) -> str:
    """Join a name and a version into a reference, "" without a name.

    Raises `UsageError` if the name contains a version, too.
    """
    if name is None or version is None:
        return name or ""
    if ":" in name or "@" in name:
        raise UsageError(
            f"Cannot use version {version!r:.200} with {name!r:.200}",
            why="The name contains a version already.",
            hint="Omit one of them.",
        )
    return f"{name}@{version}" if version.startswith("sha256:") else f"{name}:{version}"


def _list(console: Console, rows: Sequence[tuple[str, FoundRelease]]) -> None:
    if console.json:
        console.document([{**_row(name, found), "latest": found.is_latest} for name, found in rows])
    elif rows:
        console.table(("NAME", "VERSION", "DIGEST", "CREATED", "COMMIT", ""), _cells(rows))
    else:
        console.line("There are no deployments yet. Deploy with `flyte deploy FILE`.")


def _cells(rows: Iterable[tuple[str, FoundRelease]]) -> Iterator[list[str]]:
    for name, found in rows:
        release = found.release
        revision = f"{release.commit[:12]}{' (changed)' if release.dirty else ''}"
        yield [
            name,
            release.version,
            release.pin.short,
            f"{release.created[:19]}Z",
            revision,
            "latest" if found.is_latest else "",
        ]


def _row(name: str, found: FoundRelease) -> dict[str, Any]:
    release = found.release
    return {
        "name": name,
        "version": release.version,
        "digest": release.pin,
        "created": release.created,
        "commit": release.commit or None,
    }


def _show(
    console: Console, found: FoundRelease, document: Document, name: str, functions: Sequence[str]
) -> None:
    release = found.release
    host = {name: value for name, value in release.host.items() if name != "distributions"}
    details = {
        **_row(name, found),
        "project": release.space.project,
        "domain": release.space.domain,
        "user": release.user,
        "dirty": release.dirty,
        "host": release.host,
        "environment": document.value["environment"],
        "bundle": document.tree,
        "tasks": {function: document.spec(function).document() for function in functions},
    }
    if console.json:
        console.document(details)
        return
    for label in (
        "name",
        "version",
        "digest",
        "created",
        "commit",
        "user",
        "project",
        "domain",
        "bundle",
    ):
        changed = " (with uncommitted changes)" if label == "commit" and release.dirty else ""
        _print(console, label, f"{details[label] or '-'}{changed}")
    runtime = document.value["environment"]
    if document.kind == "image":
        for platform, identity in runtime["platforms"].items():
            _print(console, "image", f"{identity} ({platform}, Python {runtime['python'] or '?'})")
        names = {
            f"{name}=={version}"
            for wheels in runtime["packages"].values()
            for name, version, *_ in wheels
        }
        _print(console, "packages", ", ".join(sorted(names)) or "only those of the base")
    else:
        told = ", ".join(f"{name} {value}" for name, value in host.items())
        _print(
            console,
            "environment",
            (
                f"{runtime['uri']}@{runtime['digest']}"
                if document.kind == "reference"
                else f"host: {told}"
            ),
        )
        _print(console, "packages", f"{len(release.host.get('distributions') or ()):,}")
    for function in functions:
        _print_task(console, function, document.tasks[function])


def _print_task(console: Console, function: str, task: Any) -> None:
    interface = task["interface"]
    _print(
        console,
        "task",
        function + (f": {interface['doc'].partition(chr(10))[0]}" if interface["doc"] else ""),
    )
    for entry in interface["inputs"]:
        default = f" = {entry['default_text']}" if entry["default_text"] else ""
        doc = " ".join(entry["doc"].split())
        _print(
            console,
            "  input",
            f"{entry['name']}: {entry['type']}{default}" + (f"  {doc}" if doc else ""),
        )
    settings = {"retries": task["retries"], "timeout": task["timeout"], **task["options"]}
    for name, value in settings.items():
        if value:
            _print(
                console,
                f"  {name}",
                (
                    ", ".join(f"{key} {each}" for key, each in value.items())
                    if isinstance(value, dict)
                    else str(value)
                ),
            )
    if task["env_vars"]:
        _print(console, "  variables", ", ".join(sorted(task["env_vars"])))


def _print(console: Console, label: str, text: str) -> None:
    """Print a line, escaping what a terminal would interpret; others may have written it."""
    console.print(f"{printable(label):11} {printable(text)}")
