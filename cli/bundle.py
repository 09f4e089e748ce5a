"""`flyte bundle`."""

from __future__ import annotations

import os
from typing import Any

import click

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.errors import UsageError
from flyte_build.ops.bundle import list_bundle
from flyte_build.ops.gc import start_if_due
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.settings import Settings
from flyte_build.text.wording import plural, printable
from flyte_build.workspace.workspace import locate

from .console import Console
from .group import Group
from .options import of_a_bundle

_LARGEST = 10


@click.group(cls=Group)
def bundle() -> None:
    """Inspect the code bundle of a file."""


@bundle.command("ls")
@of_a_bundle
@click.option(
    "--why",
    metavar="PATH",
    type=click.Path(),
    help="Explain why this file is in the bundle, or which rule excludes it.",
)
@click.argument("file", metavar="FILE", type=click.Path())
@click.pass_obj
def ls(
    console: Console, copy_style: CopyStyle | None, root_dir: str | None, why: str | None, file: str
) -> None:
    """List the files in the bundle of FILE, and the excluded paths with their rules.

    Fails wherever `flyte run` would fail to bundle FILE.
    """
    stores = Stores(console)
    workspace = locate(file, root_dir)
    config = console.configuration(workspace.root)
    settings = Settings.configured(config, copy_style=copy_style, version="-")
    click.get_current_context().call_on_close(lambda: start_if_due(stores, config))
    plan = FilePlan(Session(settings, stores), workspace)
    with stores.cache.preparing():
        listing = list_bundle(plan)
    root = workspace.root
    if why is not None:
        path = (
            os.path.relpath(os.path.realpath(why), root)
            if os.path.exists(why)
            else os.path.normpath(why)
        )
        _explain(console, path, listing, plan)
        return
    if console.json:
        console.document(listing)
        return
    files = listing["files"]
    for entry in files:
        mark = " (executable)" if entry["executable"] else ""
        mark += f"  (from {entry['from']})" if "from" in entry else ""
        console.print(f"{entry['size']:>12,}  {printable(entry['path'])}{mark}")
    for entry in listing["excluded"]:
        console.print(f"{'excluded':>12}  {printable(entry['path'])}  ({printable(entry['rule'])})")
    total = sum(entry["size"] for entry in files)
    amount = f"{plural(len(files), 'file')}, {plural(total, 'byte')}"
    console.print(f"{amount}; tree {listing['digest']}")
    if len(files) > _LARGEST:
        largest = sorted(files, key=lambda entry: -entry["size"])[:_LARGEST]
        console.print(
            "largest: "
            + ", ".join(
                f"{printable(entry['path'])} ({entry['size'] / 1e6:.1f} MB)" for entry in largest
            )
        )


def _explain(console: Console, path: str, listing: dict[str, Any], plan: FilePlan) -> None:
    entry = next((entry for entry in listing["files"] if entry["path"] == path), None)
    rule = next(
        (
            each
            for each in listing["excluded"]
            if path == each["path"] or (path + "/").startswith(each["path"].rstrip("/") + "/")
        ),
        None,
    )
    findings = plan.discovery.findings
    if entry is not None:
        reasons = {
            "it is imported": path in findings.modules,
            "it was read while the file was imported": path in findings.read,
            "`include` names it": plan.session.settings.run.copy_style == "loaded_modules",
        }
        why = next((reason for reason, holds in reasons.items() if holds), "no rule excludes it")
        console.print(
            f"{path} is in the bundle: {why}"
            + (f", although a rule would exclude it ({rule['rule']})" if rule else "")
            + "."
        )
    elif below := [
        entry for entry in listing["files"] if path == "." or entry["path"].startswith(path + "/")
    ]:
        console.print(f"{path} is a directory that contains {len(below):,} of the bundle's files.")
    elif rule is not None:
        console.print(f"{path} is not in the bundle: {_exclusion(rule['path'], rule['rule'])}")
    elif not os.path.lexists(f"{plan.workspace.root}/{path}"):
        raise UsageError(f"No file or directory {path} below {plan.workspace.root}")
    else:
        include = os.path.relpath(path, os.path.dirname(plan.workspace.file))
        remedy = f'Add include=["{include}"] to the environment'
        built_in = _built_in(plan.workspace.root, path)
        remedy += f". ({built_in})" if built_in else ", or use `--copy-style all`."
        everything = plan.session.settings.run.copy_style == "all"
        console.print(
            f"{path} is not in the bundle:"
            f" {'it contains no files.' if everything else 'nothing imports it. ' + remedy}"
        )


def _exclusion(path: str, rule: str) -> str:
    """Return a sentence about the rule that excludes a path."""
    where, _, pattern = rule.partition(": ")
    if where == "built in":
        return (
            f"the built-in rule `{pattern}` excludes {path}. To include it, add `!/{path}` to"
            " .flyteignore."
        )
    return f"the rule `{pattern}` of {where} excludes {path}."


def _built_in(root: str, path: str) -> str:
    """Return a sentence about the built-in rule that would exclude a path in any case, or ""."""
    from flyte_build.workspace.ignore import Rules

    rules, parts = Rules.built_in(), path.split("/")
    for count in range(1, len(parts) + 1):
        prefix = "/".join(parts[:count])
        is_folder = count < len(parts) or os.path.isdir(f"{root}/{prefix}")
        if rule := rules.excludes(prefix, is_folder):
            return f"With `--copy-style all`, {_exclusion(prefix + '/' * is_folder, rule)}"
    return ""
