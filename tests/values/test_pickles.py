"""Values that pickle can only copy: lambdas and inner functions travel, open files do not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyte_build.images.layers import runtime
from flyte_build.values.annotations import type_of
from flyte_build.values.type import Mismatch
from tests.support.command import Shell

FUNCTION = type_of(Callable[[int], int])
ANY = type_of(Any)
TASKS = """
from typing import Any, Callable
import flyte

env = flyte.TaskEnvironment(name="functions")

@env.task
def apply(function: Callable[[int], int], x: int) -> int:
    return function(x)

@env.task
def times(n: int) -> Callable[[int], int]:
    return lambda x: n * x

@env.task
def both(n: int) -> list[int]:
    return [apply(lambda x: x + n, 1), times(n)(10), apply(times(n), 2)]

@env.task
def refused() -> str:
    try:
        apply((each for each in ()), 1)
    except flyte.errors.FlyteError as error:
        return error.what
    return "nothing was raised"
"""


def outer(n: int) -> Callable[[int], int]:
    """Return a function that is in no module."""

    def inner(x: int) -> int:
        return x * n

    return inner


def test_functions_come_back_from_the_wire() -> None:
    """A lambda and an inner function are pickled by value, one in a module by name."""
    for function in (lambda x: x * 3, outer(3)):
        wire = json.loads(json.dumps(FUNCTION.dump(function)))
        assert FUNCTION.load(wire)(5) == 15
        assert " at 0x" not in wire["text"] and wire["python"]
    assert FUNCTION.load(FUNCTION.dump(outer)) is outer
    assert "python" not in FUNCTION.dump(outer)


def test_equal_functions_have_equal_wires() -> None:
    """A program makes equal calls each time, although its objects have other addresses."""
    assert FUNCTION.dump(outer(3)) == FUNCTION.dump(outer(3)) != FUNCTION.dump(outer(4))


def test_another_python_cannot_read_a_function() -> None:
    """Code of another minor version is refused with both versions; a name is not."""
    wire = {**FUNCTION.dump(outer(3)), "python": "3.99"}
    with pytest.raises(Mismatch) as raised:
        FUNCTION.load(wire)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"pickled by Python 3.99, and this is Python {here}" in raised.value.reasons


def test_what_is_bound_to_its_process_is_refused() -> None:
    """Generators, files and locks are errors, also inside of what is pickled by value."""
    with open(__file__) as file:
        for value in ((each for each in "ab"), file, threading.Lock(), lambda: file, [file]):
            with pytest.raises(Mismatch) as raised:
                ANY.dump(value)
            assert "It cannot be pickled: cannot pickle" in raised.value.reasons


def test_an_image_needs_no_cloudpickle(tmp_path: Path) -> None:
    """The runtime brings cloudpickle, after everything that the image has itself."""
    for name, path in runtime.files():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from flyte_build.values.annotations import type_of\n"
        "from collections.abc import Callable\n"
        "type = type_of(Callable[[int], int])\n"
        "print(type.load(json.load(sys.stdin))(5), type.load(type.dump(lambda x: -x))(5))\n"
        "print(sys.modules['cloudpickle'].__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path)],
        input=json.dumps(FUNCTION.dump(lambda x: x * 3)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "15 -5",
        f"{tmp_path}/flyte_libraries/cloudpickle/__init__.py",
    ]


@pytest.mark.parametrize("options", [(), ("--local",)], ids=["prepared", "local"])
def test_tasks_pass_functions(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Functions are inputs and results of calls; the error for a generator names the parameter."""
    shell = Shell(tmp_path / "project", tmp_path / "home")
    shell.project.mkdir()
    (shell.project / "tasks.py").write_text(TASKS)
    found = shell.json("run", *options, "tasks.py", "both", "--n", "4")
    assert found["outputs"] == {"o0": [5, 40, 8]}
    told = shell.json("run", *options, "tasks.py", "refused")["outputs"]["o0"]
    assert told.startswith("The input 'function' cannot be <generator object")
