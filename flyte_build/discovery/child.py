"""Child process of discovery, which imports a user's file, watched, and describes its tasks.

It reads a request (JSON) from standard input and writes an answer (JSON) to the original standard
output. Anything that the import prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

from flyte_build._alias import install_alias
from flyte_build.errors import FlyteError, PreparationError
from flyte_build.workspace.import_hooks import (
    distrust_bytecode,
    install_targets,
    is_own,
    use_sources,
)
from flyte_build.workspace.tracebacks import cut, message_of
from flyte_build.workspace.workspace import Workspace, current_folder

from .import_roots import named, own_path
from .watch import Watch


def main() -> None:
    """Answer one request, and exit without running exit handlers that the import registered."""
    started = time.perf_counter()
    request = json.loads(sys.stdin.readline())
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    try:
        document = _discover(request)
    except BaseException as error:  # Including `sys.exit` and Ctrl-C in the file.
        document = {"error": _described(error, request["root"])}
    with answer:
        json.dump({**document, "seconds": time.perf_counter() - started}, answer)
    sys.stderr.flush()
    os._exit(0)


def _discover(request: dict[str, Any]) -> dict[str, Any]:
    workspace = Workspace(
        request["root"],
        request["file"],
        request["module"],
        tuple(request["roots"]),
        tuple(request["last"]),
    )
    install_targets(workspace.root)
    current = current_folder()
    front, last, path = (
        workspace.folders(workspace.roots),
        workspace.folders(workspace.last),
        own_path(workspace),
    )
    here = "" if current in (*front, *path, *last) else current
    # Entries for the path hooks of editable installs.
    hooks = [entry for entry in sys.path if isinstance(entry, str) and not os.path.isabs(entry)]
    sys.path[:] = [*front, *path, *hooks, *last, *filter(None, [here])]
    workspace = named(workspace, path)
    root, file = workspace.root, workspace.file
    sys.argv = [f"{root}/{file}"]
    install_alias()  # Before watching begins, so that both names of this package exist.
    use_sources(lambda folder: is_own(f"{folder}/x"), lambda path: None)
    distrust_bytecode(is_own)
    watch = Watch(root, current)
    began = time.time_ns()
    with watch.watching():
        import importlib

        module = importlib.import_module(workspace.module)
    if os.path.realpath(module.__file__ or "") != f"{root}/{file}":
        raise PreparationError(
            f"{file} cannot be imported: another module has its name",
            why=(
                f"A module {workspace.module!r} is imported already, or is found earlier on"
                " `sys.path`."
            ),
            hint="Give the file another name.",
        )
    from .describe import describe

    try:
        return describe(module, workspace, here, watch, began)
    except FlyteError:
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise PreparationError(
            f"Cannot describe the tasks of {file}: {type(error).__name__}: {error}",
            why=(
                f"Importing the file succeeded; the error occurred in {at.name}"
                f" ({os.path.basename(at.filename)}:{at.lineno})."
            ),
            hint=(
                "Please report this bug in flyte-build. An unusual value in the file may be the"
                " cause."
            ),
        ) from error


def _described(error: BaseException, root: str) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if frame.filename.startswith(root + "/") and is_own(frame.filename)
    ]
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(root + "/"):
        place = f"{os.path.relpath(error.filename, root)}:{error.lineno}"
    else:
        place = f"{os.path.relpath(own[-1].filename, root)}:{own[-1].lineno}" if own else ""
    trace = "".join(
        map(cut, [*traceback.format_list(own), *traceback.format_exception_only(error)])
    )
    return {
        "type": type(error).__name__,
        "message": message_of(error),
        "place": place,
        "traceback": trace,
        "module": getattr(error, "name", None) or "" if isinstance(error, ImportError) else "",
        "what": getattr(error, "what", ""),
        "why": getattr(error, "why", ""),
        "hint": getattr(error, "hint", ""),
    }
