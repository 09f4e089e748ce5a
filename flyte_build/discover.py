"""Discovery's child process: imports a user's file under watch, and describes the tasks in it.

It reads a request (JSON) from standard input, and writes an answer (JSON) to the file descriptor that the request names;
whatever the import prints goes to standard error. Only values that JSON can hold cross the border.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

from .errors import FlyteError, PreparationError
from .importing import loaded_files, root_folders, use_folder
from .observe import Watch
from .raised import cut, message_of


def main() -> None:
    """Answer one request, and leave without running what the import has registered for the end."""
    started = time.perf_counter()
    request = json.loads(sys.stdin.readline())
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    try:
        document = _discover(request)
    except BaseException as error:  # Anything: `sys.exit` and Ctrl-C in the file included.
        document = {"error": _described(error, request["root"])}
    with answer:
        json.dump({**document, "seconds": time.perf_counter() - started}, answer)
    sys.stderr.flush()
    os._exit(0)


def _discover(request: dict[str, Any]) -> dict[str, Any]:
    root, file, name = request["root"], request["file"], request["module"]
    front = root_folders(root, request["roots"])
    sys.path[:] = [*front, *(entry for entry in sys.path if entry not in front), *request["last"]]
    sys.argv = [f"{root}/{file}"]
    import flyte_build  # The face, under both of its names, before anybody watches.

    sys.modules["flyte"] = flyte_build
    flyte_build.install_alias()
    use_folder(root, None)
    watch = Watch(root)
    began = time.time_ns()
    with watch.watching():
        import importlib

        module = importlib.import_module(name)
    if os.path.realpath(module.__file__ or "") != f"{root}/{file}":
        raise PreparationError(
            f"{file} cannot be imported: another module has its name",
            why=f"There is a module {name!r} already, or one that comes first where modules are looked for.",
            hint="Give the file another name.",
        )
    loaded = loaded_files()
    from .describe import describe

    try:
        return describe(module, loaded, root, file, request["roots"], watch, began)
    except FlyteError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise PreparationError(
            f"The tasks of {file} could not be described: {type(error).__name__}: {error}",
            why=f"Importing it went well; this happened in {last.name} ({os.path.basename(last.filename)}:{last.lineno}).",
            hint="That is a fault of flyte-build: please report it. An unusual value in the file may be the cause.",
        ) from error


def _described(error: BaseException, root: str) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(root + "/")]
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(root + "/"):
        place = f"{os.path.relpath(error.filename, root)}:{error.lineno}"
    else:
        place = f"{os.path.relpath(own[-1].filename, root)}:{own[-1].lineno}" if own else ""
    trace = "".join(map(cut, [*traceback.format_list(own), *traceback.format_exception_only(error)]))
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
