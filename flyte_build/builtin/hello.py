"""The built-in example of `flyte run hello`, so that the first command needs no file."""

from __future__ import annotations

import os

from flyte_build.cas.atomic import replace_file
from flyte_build.cas.folder import make_below

_EXAMPLE = '''import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
def hello(name: str = "World") -> str:
    """Greet somebody.

    Args:
        name: Who is greeted.
    """
    return f"Hello, {name}!"
'''


def write_example(folder: str) -> str:
    """Write the example below `folder`, unless it exists, and return its path."""
    path = f"{folder}/example/hello.py"
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == _EXAMPLE:
                return path
    except OSError:
        pass
    make_below(os.path.dirname(path))
    replace_file(path, _EXAMPLE.encode(), sync=False)
    return path
