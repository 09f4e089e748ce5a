"""Inputs as a user gives them to the installed command, and the refusal of wrong ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FLYTE = os.path.join(os.path.dirname(sys.executable), "flyte")
HEAD = "import flyte\nenv = flyte.TaskEnvironment(name='t')\n"


class Project:
    """A directory with files of tasks, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        """Write a file; one of tasks begins with the common imports."""
        (self.folder / name).write_text(
            HEAD + text if name.endswith(".py") else text, encoding="utf-8"
        )

    def __call__(
        self, *command: str, exit_code: int = 0, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, and check its exit code and that no traceback is shown."""
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, input=input, timeout=120
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def run(self, *arguments: str, input: str = "") -> Any:
        """Return the outputs of `flyte run` with these arguments."""
        return json.loads(self(FLYTE, "-of", "json", "run", *arguments, input=input).stdout)[
            "outputs"
        ]

    def refusal(self, *arguments: str, exit_code: int = 2, input: str = "") -> str:
        """Return the error of a `flyte run` that does not run anything."""
        return self(FLYTE, "run", *arguments, exit_code=exit_code, input=input).stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


def test_a_file_that_cannot_be_described_is_no_failed_import(project: Project) -> None:
    """An object that fails to be described is not reported as a failed import."""
    project.write(
        "odd.py",
        "class Odd:\n    @property\n    def __class__(self): raise RuntimeError('look away')\n\nodd"
        " = Odd()\n",
    )
    said = project.refusal("odd.py", "task", exit_code=3)
    assert "error: Cannot describe the tasks of odd.py: RuntimeError: look away" in said
    assert "Importing the file succeeded" in said


def test_a_timeout_that_is_no_duration_is_the_declarations_fault(project: Project) -> None:
    """A malformed timeout is reported with its task and its value, as an error in the file."""
    project.write("late.py", "@env.task(timeout='soon')\ndef late() -> None: ...\n")
    assert "error: The timeout of t.late is not a duration\n  It is 'soon'." in project.refusal(
        "late.py", "late", exit_code=3
    )


CLASSES = """
import enum
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Callable, Literal
from uuid import UUID

class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"

@dataclass
class Trip:
    city: str
    days: int = 1
    tags: list[str] = field(default_factory=list)

    def __post_init__(self):
        if self.days < 1:
            raise ValueError("too short")
"""
MODEL = """
from pydantic import BaseModel, Field

class Fit(BaseModel):
    size: int = Field(gt=0)
"""
TASKS = (
    CLASSES
    + MODEL
    + '''
@env.task
def go(
    mode: Mode,
    ids: list[int] | None = None,
    size: Literal["s", "m"] = "m",
    trip: Trip = Trip("Oslo", 3, ["cold"]),
    day: date = date(2026, 1, 31),
    price: Decimal = Decimal("1.10"),
    data: bytes = b"",
    pair: tuple[int, str] = (1, "a"),
    dry_run: bool = False,
) -> str:
    """Go somewhere.

    Args:
        mode: How to go.
    """
    return repr((mode.name, ids, size, trip.city, trip.days, trip.tags, str(day), str(price), data, pair, dry_run))

@env.task
def first(value: int | date | Trip) -> str:
    return repr(value)

@env.task(retries=2)
def many(value: list[Trip]) -> int:
    return len(value)

@env.task
def fit(value: Fit) -> int:
    return value.size

@env.task
def apply(function: Callable[[int], int]) -> int:
    return function(-3)

@env.task
def outputs() -> tuple[set[int], Mode, bytes, int | str, UUID]:
    return {3, 1}, Mode.FAST, b"hi", "3", UUID(int=1)
'''
)
GONE = ("FAST", None, "m", "Oslo", 3, ["cold"], "2026-01-31", "1.10", b"", (1, "a"), False)


def gone(**changes: Any) -> dict[str, str]:
    """Return the output of `go` with these changes of its inputs."""
    names = (
        "mode",
        "ids",
        "size",
        "city",
        "days",
        "tags",
        "day",
        "price",
        "data",
        "pair",
        "dry_run",
    )
    return {"o0": repr(tuple({**dict(zip(names, GONE, strict=True)), **changes}.values()))}


@pytest.fixture
def tasks(project: Project) -> Project:
    """A project with tasks that take many types, and files with inputs."""
    project.write("tasks.py", TASKS)
    project.write("in.json", '{"mode": "SLOW", "ids": [1], "trip": {"city": "Rom"}}')
    project.write("in.toml", 'mode = "fast"\nday = 2026-05-01\npair = [2, "b"]\n')
    project.write("trip.yaml", "city: Bern\ntags: [far]\n")
    project.write("data.bin", "hi")
    return project


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--mode", "FAST"], {}),
        (["--mode", "slow", "--ids", "1", "--ids", "2"], {"mode": "SLOW", "ids": [1, 2]}),
        (["--mode", "FAST", "--ids", "7", "--size", "s"], {"ids": [7], "size": "s"}),
        (["--mode", "FAST", "--ids", "null", "--price", "0.30"], {"price": "0.30"}),
        (["--mode", "FAST", "--trip", '{"city": "Rom"}'], {"city": "Rom"}),
        (["--mode", "FAST", "--trip", "trip.yaml"], {"city": "Bern", "tags": ["far"]}),
        (
            ["--mode", "FAST", "--trip", "@trip.yaml", "--data", "@data.bin"],
            {"city": "Bern", "tags": ["far"], "data": b"hi"},
        ),
        (
            ["--mode", "FAST", "--pair", "2", "--pair", "b", "--dry-run"],
            {"pair": (2, "b"), "dry_run": True},
        ),
        (
            ["--mode", "FAST", "--dry_run", "yes", "--day", "2026-02-01T10:00"],
            {"dry_run": True, "day": "2026-02-01"},
        ),
        (
            ["--mode", "FAST", "--dry-run", "true", "--data", "base64:aGk="],
            {"dry_run": True, "data": b"hi"},
        ),
    ],
)
def test_options_are_read_by_their_types(
    tasks: Project, arguments: list[str], changes: dict[str, Any]
) -> None:
    """Options are parsed by their types, and missing ones have their defaults.

    A value may be text, JSON or the name of a file, and an option may be repeated.
    """
    assert tasks.run("tasks.py", "go", *arguments) == gone(**changes)


def test_a_file_gives_inputs_and_options_win(tasks: Project) -> None:
    """Inputs come from JSON, TOML or standard input, and options override them.

    Missing fields of a record come from the task's default.
    """
    assert tasks.run("--inputs-file", "in.json", "tasks.py", "go") == gone(
        mode="SLOW", ids=[1], city="Rom"
    )
    assert tasks.run("--inputs-file", "in.toml", "tasks.py", "go", "--pair", '[3, "c"]') == gone(
        day="2026-05-01", pair=(3, "c")
    )
    assert tasks.run(
        "--inputs-file", "-", "tasks.py", "go", "--ids", "4", input='{"mode": "FAST", "ids": [1]}'
    ) == gone(ids=[4])


@pytest.mark.parametrize(
    ("arguments", "input", "said"),
    [
        ([], "", ["The input 'mode' is missing", "Mode, one of FAST, SLOW", "--mode FAST"]),
        (
            ["--mode", "quick"],
            "",
            ["'mode' cannot be 'quick'", "Mode, one of FAST, SLOW", "--mode FAST"],
        ),
        (
            ["--mode", "FAST", "--mode", "SLOW"],
            "",
            ["one Mode. It was given 2 times.", "--mode FAST"],
        ),
        (
            ["--mode", "FAST", "--size", "l"],
            "",
            ["'size' cannot be 'l'", "Expected: s | m.", "--size s"],
        ),
        (
            ["--mode", "FAST", "--ids", "1", "--ids", "x"],
            "",
            ["'ids[1]' cannot be 'x'", "Expected: int.", "--ids '[3, 3]'"],
        ),
        (
            ["--mode", "FAST", "--trip", '{"days": "x"}'],
            "",
            ["'trip.days' cannot be 'x'", "Expected: int.", '--trip \'{"city": "text"}\''],
        ),
        (
            ["--mode", "FAST", "--trip", '{"town": 1}'],
            "",
            ["'trip.town' cannot be 1", "Its fields are city, days, tags."],
        ),
        (
            ["--mode", "FAST", "--trip", "@no.json"],
            "",
            ["'trip' cannot be '@no.json'", "no.json: No such file"],
        ),
        (
            ["--mode", "FAST", "--data", "hi"],
            "",
            ["'data' cannot be 'hi'", "base64:", "--data base64:aGk="],
        ),
        (
            ["--mode", "FAST", "--day", "soon"],
            "",
            ["'day' cannot be 'soon'", "date, as in 2026-01-31", "--day 2026-01-31"],
        ),
        (["--modes", "FAST"], "", ["No such option '--modes'", "--mode"]),
        ([], '{"mod": "FAST"}', ["The input 'mod' does not exist", "Did you mean 'mode'?"]),
        ([], '{"mode": 1}', ["'mode' cannot be 1", "--mode FAST"]),
        ([], "[1]", ["--inputs-file - is not an object"]),
        ([], "{", ["Cannot parse --inputs-file -"]),
    ],
)
def test_a_refusal_names_the_input_its_type_its_value_and_an_example(
    tasks: Project, arguments: list[str], input: str, said: list[str]
) -> None:
    """A refusal names input, type, value and an example; nothing runs, and the exit code is 2."""
    source = ["--inputs-file", "-"] if input else []
    error = tasks.refusal(*source, "tasks.py", "go", *arguments, input=input)
    assert [part for part in said if part not in error] == []


def test_a_union_takes_the_first_member_that_fits(tasks: Project) -> None:
    """A union takes the first member that fits, or the error lists each member's reason."""
    assert tasks.run("tasks.py", "first", "--value", "7") == {"o0": "7"}
    assert tasks.run("tasks.py", "first", "--value", "2026-01-31") == {
        "o0": "datetime.date(2026, 1, 31)"
    }
    assert tasks.run("tasks.py", "first", "--value", '{"city": "Rom"}') == {
        "o0": "Trip(city='Rom', days=1, tags=[])"
    }
    error = tasks.refusal("tasks.py", "first", "--value", '{"city": 3}')
    assert "Not Trip: city is missing." in tasks.refusal("tasks.py", "first", "--value", "{}")
    assert "Expected: int | date | Trip. Not int. Not date. Not Trip: city is not str." in error


def test_any_object_can_be_named_and_none_is_unpickled(tasks: Project) -> None:
    """`MODULE:NAME` names any object, looked up where the task runs; nothing is unpickled."""
    assert tasks.run("tasks.py", "apply", "--function", "operator:neg") == {"o0": 3}
    assert "Expected: Callable, as MODULE:NAME." in tasks.refusal(
        "tasks.py", "apply", "--function", '{"$pickle": "gAVLAS4="}'
    )
    for name, why in (
        ("math:no", "AttributeError: module 'math' has no"),
        ("nowhere:no", "ModuleNotFoundError: No module named 'nowhere'"),
    ):
        said = tasks.refusal("tasks.py", "apply", "--function", name)
        assert (
            f"InputError: The input 'function' cannot be '{name}'. Expected: Callable, as"
            f" MODULE:NAME. Creating it raised {why}" in said
        )


@pytest.mark.parametrize("engine", ["process", "local"])
@pytest.mark.parametrize(
    ("task", "value", "why", "example"),
    [
        ("first", {"city": "a", "days": 0}, "Creating it raised ValueError: too short.", "3"),
        (
            "many",
            [{"city": "a", "days": 0}],
            "Creating it raised ValueError: too short.",
            """'[{"city": "text"}, {"city": "text"}]'""",
        ),
        ("fit", {"size": 0}, "Input should be greater than 0", """'{"size": 3}'"""),
    ],
)
def test_what_a_class_refuses_is_a_wrong_input(
    tasks: Project, engine: str, task: str, value: Any, why: str, example: str
) -> None:
    """A value that a class refuses is a wrong input, with parameter, type, value and an example.

    Only the run can tell; it stays in the history, and is not retried.
    """
    command = [
        FLYTE,
        "-of",
        "json",
        "run",
        "--engine",
        engine,
        "tasks.py",
        task,
        "--value",
        json.dumps(value),
    ]
    done = subprocess.run(command, cwd=tasks.folder, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    result = json.loads(done.stdout)
    assert (
        result["phase"] == "failed"
        and result["error"]["type"] == "InputError"
        and result["error"]["kind"] == "input"
    )
    message = result["error"]["message"]
    types = {"first": "int | date | Trip", "many": "list[Trip]", "fit": "Fit"}
    assert (
        message.startswith(f"The input 'value' cannot be {value}. Expected: {types[task]}")
        and why in message
    )
    assert result["error"]["hint"] == f"For example: --value {example}"
    recorded = json.loads(tasks(FLYTE, "-of", "json", "get", "run", result["run"]).stdout)
    assert (recorded["phase"], recorded["actions"][0]["attempts"]) == ("failed", 1)
    assert ("in __post_init__" in result["error"]["traceback"]) == (task != "fit")
    assert "flyte_build" not in done.stderr and "pydantic/" not in done.stderr


def test_an_input_error_of_the_tasks_own_is_its_failure(project: Project) -> None:
    """An `InputError` that the task itself raises is a failure of the task."""
    project.write(
        "own.py",
        "from flyte.errors import InputError\n@env.task\ndef own() -> None: raise"
        " InputError('mine')\n",
    )
    failed = subprocess.run(
        [FLYTE, "run", "own.py", "own"], cwd=project.folder, capture_output=True, text=True
    )
    assert failed.returncode == 1 and "failed: t.own: InputError: mine" in failed.stderr


def test_a_class_that_refuses_an_input_in_the_worker_raises_an_input_error(
    project: Project,
) -> None:
    """An object that its class refuses in the worker raises `InputError` in Python.

    Here it was valid when it was created, and changed later.
    """
    main = """
if __name__ == "__main__":
    flyte.init_from_config()
    trip = Trip("Oslo")
    trip.days = 0
    try:
        flyte.run(days, trip)
    except flyte.errors.InputError as error:
        print(error.what, error.hint)
"""
    project.write(
        "script.py",
        f"import flyte.errors\n{CLASSES}\n@env.task\ndef days(trip: Trip) -> int: return"
        f" trip.days\n{main}",
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=project.folder, capture_output=True, text=True
    )
    assert done.stdout.startswith(
        "t.days: The input 'trip' cannot be {'city': 'Oslo', 'days': 0, 'tags': []}. Expected: Trip"
    ), done.stderr
    assert done.stdout.endswith(
        """Creating it raised ValueError: too short. For example: --trip '{"city": "text"}'\n"""
    )


def test_outputs_are_shown_in_the_form_that_inputs_have(tasks: Project) -> None:
    """Outputs are shown in the form of inputs: sorted sets, names of choices, base64.

    So the output of one task can be the input of another.
    """
    uuid = "00000000-0000-0000-0000-000000000001"
    assert tasks.run("tasks.py", "outputs") == {
        "o0": [1, 3],
        "o1": "FAST",
        "o2": "base64:aGk=",
        "o3": "3",
        "o4": uuid,
    }


def test_help_shows_types_defaults_and_what_can_be_given(tasks: Project) -> None:
    """Help shows types, defaults and possible values."""
    text = " ".join(tasks(FLYTE, "run", "tasks.py", "go", "--help").stdout.split())
    for part in (
        "Go somewhere.",
        "--mode <Mode> How to go. [one of FAST, SLOW; required]",
        "--size <s | m> [default: m]",
        "--ids <list[int] | None> [default: null]",
        "{city: str, days: int (optional), tags: list[str] (optional)}",
        "--dry-run, --dry_run <bool> [default: false]",
        "--no-dry-run, --no-dry_run Same as `false`.",
    ):
        assert part in text


def test_a_class_of_the_main_file_is_one_class_on_both_sides(project: Project) -> None:
    """A class in a file that runs as a script is the same in the file and in its task."""
    task = (
        "@env.task\ndef longer(trip: Trip, mode: Mode) -> Trip:\n    assert isinstance(trip, Trip)"
        " and mode is Mode.SLOW\n"
    )
    main = """
if __name__ == "__main__":
    for context in (flyte.with_runcontext(mode="remote"), flyte.with_runcontext(mode="local")):
        trip = context.run(longer, Trip("Oslo"), mode=Mode.SLOW).outputs()[0]
        print(type(trip) is Trip, trip)
"""
    project.write(
        "script.py", CLASSES + task + "    return Trip(trip.city, trip.days + 1)\n" + main
    )
    assert (
        project(sys.executable, "script.py").stdout
        == "True Trip(city='Oslo', days=2, tags=[])\n" * 2
    )
    assert project.run("script.py", "longer", "--trip", '{"city": "a"}', "--mode", "SLOW") == {
        "o0": {"city": "a", "days": 2, "tags": []}
    }


def test_an_output_that_does_not_fit_is_said_with_its_place(project: Project) -> None:
    """An output of a wrong type is reported with its place, and so is one that pickle refuses."""
    project.write(
        "wrong.py",
        "@env.task\ndef wrong() -> list[int]: return [1, 'x']\n@env.task\ndef lost() -> object:"
        " return (each for each in ())\n",
    )
    said = project.refusal("wrong.py", "wrong", exit_code=1)
    assert (
        "RuntimeDataValidationError: the task returned 'x' at [1], but its annotation says int"
        in said
    )
    assert "It cannot be pickled: " in project.refusal("wrong.py", "lost", exit_code=1)


FORMS = """@env.task
def forms(n: int, items: list[int], flag: bool = False, at: float = 0.5) -> list[object]:
    return [n, items, flag, at]
"""


def test_all_wrong_inputs_are_reported_at_once(project: Project) -> None:
    """All wrong or missing inputs are reported at once, each with its type and an example.

    That includes inputs from a file.
    """
    project.write("forms.py", FORMS)
    said = project.refusal("forms.py", "forms", "--n", "x", "--flag", "perhaps")
    assert said.splitlines()[-4:] == [
        "error: 3 inputs are invalid",
        "  The input 'n' cannot be 'x'. Expected: int. For example: --n 3",
        "  The input 'items' is missing. Its type is list[int], and it has no default."
        " Add, for example: --items '[3, 3]'",
        "  The input 'flag' cannot be 'perhaps'. Expected: bool. For example: --flag true",
    ]
    values = json.dumps({"n": "x", "items": [1, "y"]})
    said = project.refusal("--inputs-file", "-", "forms.py", "forms", input=values)
    assert "error: 2 inputs" in said and "'n' cannot be 'x'" in said and "'items[1]'" in said


def test_wrong_inputs_of_a_call_show_python(project: Project) -> None:
    """The hint about wrong inputs of a call in Python is written in Python."""
    calls = (
        "    for given in ({'n': 'x', 'items': [1]}, {'n': 1}, {'n': 1, 'items': ['y']}):\n"
        "        try: flyte.run(forms, **given)\n"
        "        except flyte.errors.InputError as error: print(error.hint)\n"
    )
    project.write(
        "forms.py", FORMS + "if __name__ == '__main__':\n    flyte.init_from_config()\n" + calls
    )
    assert project(sys.executable, "forms.py").stdout.splitlines() == [
        "For example: n=3",
        "Add, for example: items=[3, 3]",
        "For example: items=[3, 3]",
    ]


def test_scalars_of_numpy_are_taken_where_they_are_exact(project: Project) -> None:
    """Scalars of numpy are valid inputs and outputs if their type fits and no digit is lost."""
    project.write(
        "forms.py",
        FORMS + "@env.task\ndef gives() -> tuple[int, float, bool]:\n    import numpy\n"
        "    return numpy.int16(7), numpy.float32(0.5), numpy.bool_(True)\n"
        "if __name__ == '__main__':\n    import numpy as np\n    flyte.init_from_config()\n"
        "    print(flyte.run(forms, n=np.int64(2), items=[np.uint8(3)], flag=np.bool_(True),"
        " at=np.float32(0.25)).outputs()[0], flyte.run(gives).outputs())\n"
        "    for n in (np.float64(1), np.bool_(True), np.array([1]), np.longdouble(1)):\n"
        "        try: flyte.run(forms, n=n, items=[])\n"
        "        except flyte.errors.InputError as error: print(error.what[:21])\n",
    )
    first, *refused = project(sys.executable, "forms.py").stdout.splitlines()
    assert first == "[2, [3], True, 0.25] (7, 0.5, True)"
    assert refused == ["The input 'n' cannot "] * 4


def test_an_option_of_run_after_the_task_is_pointed_at(project: Project) -> None:
    """An option of `run` after the task is reported with its right place.

    An unknown option is refused as usual.
    """
    project.write("forms.py", FORMS)
    said = project.refusal("forms.py", "forms", "--n", "3", "--engine", "docker")
    assert "error: --engine is an option of `flyte run`, not an input of forms" in said
    assert "flyte run [OPTIONS] FILE TASK [INPUTS]..." in said
    assert "No such option '--nn'" in project.refusal("forms.py", "forms", "--nn", "3")


def test_a_file_and_its_task_can_be_one_word(project: Project) -> None:
    project.write("forms.py", FORMS)
    assert project.run("forms.py:forms", "--n", "1", "--items", "[]") == {"o0": [1, [], False, 0.5]}
    assert "There is no task 'gone' in forms.py" in project.refusal("forms.py:gone")
    assert "The file gone.py:forms does not exist" in project.refusal("gone.py:forms")


def test_an_object_as_a_result_is_printed_as_text(project: Project) -> None:
    """An object as a result is printed as text, as numpy shows an array; JSON has its pickle."""
    project.write(
        "arrays.py",
        "import numpy\n@env.task\ndef one():\n    return numpy.arange(6).reshape(2, 3)\n"
        "@env.task\ndef two() -> tuple[object, list[object]]:\n"
        "    return numpy.zeros(2), [numpy.ones(1), 'x']\n",
    )
    done = project(FLYTE, "run", "arrays.py", "one")
    assert done.stdout == "array([[0, 1, 2],\n       [3, 4, 5]])\n"
    done = project(FLYTE, "run", "arrays.py", "two")
    assert done.stdout == 'o0: array([0., 0.])\no1: ["array([1.])", "x"]\n'
    assert set(project.run("arrays.py", "one")["o0"]) == {"type", "text", "$pickle"}
