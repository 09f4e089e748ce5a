"""All engines fulfil the protocol, with real processes and containers.

The `local` engine runs attempts in `submit`, so whatever needs a running attempt is not for it.
"""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from flyte_build.declarations.describe import task_spec
from flyte_build.errors import (
    EngineUnavailable,
    FlyteError,
    RuntimeSystemError,
    StoreUnavailable,
)
from flyte_build.images.docker.client import connect
from flyte_build.images.layers import runtime
from flyte_build.runner.action import Action, Endpoint
from flyte_build.runner.call import Call, RunOptions
from flyte_build.runner.controller.outcome import outcome
from flyte_build.runner.engines.containers import Containers, Place
from flyte_build.runner.engines.docker import DockerEngine
from flyte_build.runner.engines.fork_servers import ForkServers, can_fork
from flyte_build.runner.engines.forking_containers import ForkingContainers
from flyte_build.runner.engines.local import LocalEngine
from flyte_build.runner.engines.poll import wait_for
from flyte_build.runner.engines.process import ProcessEngine
from flyte_build.runner.engines.protocol import Engine, Event, Sink, Waits
from flyte_build.runner.engines.worker_process import WorkerProcess
from flyte_build.runner.engines.workers import Workers
from flyte_build.runner.history.actions import Actions
from flyte_build.runner.reporter import pass_on
from flyte_build.runner.result import Result
from flyte_build.runner.worker.spawn import Worker, start_worker
from flyte_build.workspace.workspace import Workspace
from tests.support.bases import rootfs
from tests.support.caches import opened
from tests.support.command import wait_for_no_sleepers
from tests.support.engines import Engine as Docker

TASKS = """
import os, signal, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="e")

@env.task
def succeeds(x: int) -> int:
    with open("calls", "a") as file:
        file.write("x")
    return x + 1

@env.task
def raises() -> None:
    raise ValueError("no")

@env.task
def exits() -> None:
    sys.exit(3)

@env.task
def ends(code: int) -> None:
    os._exit(code)

@env.task
def signalled(number: int) -> None:
    os.kill(os.getpid(), number)

@env.task
def waits() -> None:
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    try:
        print("started", flush=True)
        time.sleep(600)
    finally:
        print("cleaned up", flush=True)

@env.task
def stubborn() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: print("asked", flush=True))
    subprocess.Popen(["sleep", "987654"])
    print("started", flush=True)
    while True:
        time.sleep(600)

@env.task
def two_streams() -> None:
    os.write(1, b"out 1\\nout 2")
    os.write(2, b"err 1\\n")

@env.task
def prints(size: int) -> None:
    block = bytes(range(256)) * 256
    while size:
        size -= os.write(1, block[:size])

@env.task
def prints_lines(letter: str, count: int) -> None:
    os.write(1, (letter.encode() * 90 + b"\\n") * count)
    if not count:
        print(letter, end="")

@env.task
def gated() -> None:
    print("started", flush=True)
    open("gate").close()

@env.task
def sleeps(seconds: float) -> None:
    os.write(1, b"asleep\\n")
    time.sleep(seconds)
    os.write(1, b"awake\\n")
"""
RUN = "r" + os.urandom(6).hex()


@dataclass
class Kept:
    """A sink that takes everything at once."""

    data: dict[int, bytes] = field(default_factory=lambda: {1: b"", 2: b""})

    def output(self, stream: int, data: bytes) -> int:
        self.data[stream] += data
        return len(data)

    def output_descriptor(self, stream: int) -> int:
        raise AssertionError("Nothing is held")


class Piecemeal(Kept):
    """A sink that takes no more at once than a pipe that has just room enough.

    It takes nothing until it `is_open`.
    """

    is_open = False

    def output(self, stream: int, data: bytes) -> int:
        return super().output(stream, data[: select.PIPE_BUF]) if self.is_open else 0

    def output_descriptor(self, stream: int) -> int:
        return 2


class Pipe:
    """A sink whose reader takes nothing until `read` is called."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.fill = b"-" * (1 << 20)
        self.fill = self.fill[: self.output(1, self.fill)]

    def output(self, stream: int, data: bytes) -> int:
        return pass_on(self._write, data)

    def output_descriptor(self, stream: int) -> int:
        return self._write

    def read(self) -> bytes:
        """Return what is in the pipe."""
        with suppress(BlockingIOError):
            return os.read(self._read, 1 << 20)
        return b""

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@dataclass
class Bench:
    """An engine of one kind, and actions for it."""

    kind: str
    folder: Path
    tasks: ModuleType
    made: Callable[[Bench, Sink], Engine]
    sink: Kept = field(default_factory=Kept)
    variable: str = ""
    workers: list[WorkerProcess] = field(default_factory=list)
    servers: ForkServers = field(default_factory=ForkServers)
    events: list[Event] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        self.engine = self.make(self.sink)

    def make(self, sink: Sink) -> Engine:
        """Return another engine of this kind."""
        self.engines.append(self.made(self, sink))
        return self.engines[-1]

    def action(self, variable: str, id: str = "a0", **inputs: Any) -> Action:
        code, self.variable = self.folder / "bundle", variable
        is_here = self.kind == "local"
        call = Call(
            task=task_spec(getattr(self.tasks, variable)),
            workspace=Workspace(f"{code}/code" if is_here else "", "acts.py", "acts"),
            variable=variable,
            inputs=inputs,
            run=RunOptions("p", "d", "all"),
            code="" if is_here else str(code),
        )
        endpoint = None
        if self.kind == "contained":
            (self.folder / "api").mkdir(exist_ok=True)
            endpoint = Endpoint(f"{self.folder}/api/socket", "token")
        folder = f"{self.folder}/actions/{id}"
        return Action(id=id, run=RUN, folder=folder, call=call, endpoint=endpoint)

    def start(self, action: Action, python: str = sys.executable) -> WorkerProcess:
        worker: WorkerProcess | None = None
        if self.kind == "forked":
            worker = self.servers.fork(python, os.environ, action.call)
        self.workers.append(worker or start_worker(python))
        return self.workers[-1]

    def turn(self, engine: Engine | None = None) -> None:
        """Wait for an event, as the controller does, and let the engine work."""
        engine = engine or self.engine
        wait_for([engine.waits()])
        self.turns += 1
        self.events += engine.events()

    def until(self, condition: Callable[[], object], engine: Engine | None = None) -> None:
        """Take turns until a condition holds."""
        while not condition():
            self.turn(engine)

    def until_printed(self, text: str) -> None:
        """Take turns until the attempts have printed a text on standard output."""
        self.until(lambda: text.encode() in self.sink.data[1])

    def logged(self, action: Action) -> bytes:
        """Return the log of an action."""
        return Path(f"{action.folder}/log").read_bytes()

    def kill(self) -> None:
        """Kill the worker, or the container, of the only attempt that runs."""
        if self.kind in ("process", "forked"):
            pid = self.workers[-1].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        else:
            client = connect()
            (container,) = client.containers(filters={"label": f"flyte.run={RUN}"})
            client.kill(container["Id"])
            client.close()

    def run(self, action: Action, engine: Engine | None = None) -> Event:
        """Run an attempt to its end, and return its event."""
        (engine or self.engine).submit(action)
        self.until(lambda: self.events, engine)
        (event,) = self.events
        self.events.clear()
        return event


def no_actions(run: str) -> Actions:
    raise AssertionError("No task of these tests calls another one")


def load(folder: Path) -> ModuleType:
    """Import the tasks into this process, without entering them in `sys.modules`."""
    spec = importlib.util.spec_from_file_location("acts", folder / "acts.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTAINERS = pytest.param("docker", marks=[pytest.mark.xdist_group("engine"), pytest.mark.slow])


@pytest.fixture(scope="module")
def place(engine: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Settings of containers with Debian's Python."""
    with opened(tmp_path_factory.mktemp("cache")) as cache:
        image = engine.imported(rootfs())
        yield Place(image=image, runtime=runtime.folder(cache), store="tests")


CONTAINED = pytest.param("contained", marks=[pytest.mark.xdist_group("engine"), pytest.mark.slow])
FORKED = pytest.param("forked", marks=pytest.mark.skipif(not can_fork(), reason="no pidfd_open"))


class Contained(Workers):
    """Engine whose containers fork all workers, the root's, too."""

    name, runs_here, acts_on = "docker", False, frozenset[str]()

    def __init__(self, place: Place, sink: Sink) -> None:
        self._forks = ForkingContainers(Containers(place, connect()))
        super().__init__(self._forks, sink)

    def close(self) -> None:
        super().close()
        self._forks.close()


@pytest.fixture(params=("process", FORKED, CONTAINERS, CONTAINED))
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """An engine of one kind, which has nothing to do."""
    kind, code = str(request.param), tmp_path / "bundle/code"
    code.mkdir(parents=True)
    (code / "acts.py").write_text(TASKS)
    if kind in ("docker", "contained"):
        docker, place = request.getfixturevalue("engine"), request.getfixturevalue("place")
        monkeypatch.setenv("DOCKER_HOST", docker.host)
    monkeypatch.chdir(tmp_path)

    def make(bench: Bench, sink: Sink) -> Engine:
        if kind in ("process", "forked"):
            return ProcessEngine(sink, bench.start)
        if kind == "docker":
            return DockerEngine(place, sink, connect(), shares=False)
        if kind == "contained":
            return Contained(place, sink)
        return LocalEngine(lambda: getattr(bench.tasks, bench.variable), no_actions, pytest.fail)

    bench = Bench(kind, tmp_path, load(code), make)
    yield bench
    for engine in bench.engines:
        engine.close()
    bench.servers.close()
    wait_for_no_sleepers()
    if kind in ("docker", "contained"):
        docker.is_rid_of(RUN)


ALL = pytest.mark.parametrize(
    "bench", ("local", "process", FORKED, CONTAINERS, CONTAINED), indirect=True
)


@ALL
def test_an_attempt_is_begun_once(bench: Bench) -> None:
    """Submitting an attempt again changes nothing; another attempt of the action is another one."""
    action = bench.action("succeeds", x=1)
    for attempt in (action, action._replace(attempt=2)):
        bench.engine.submit(attempt)
        bench.engine.submit(attempt)
        bench.until(lambda: bench.events)
        (event,) = bench.events
        assert (event.action, event.kind) == (attempt, "succeeded")
        assert bench.engine.running() == [] and bench.engine.events() == []
        assert outcome(attempt, event) == Result("succeeded", {"o0": 2})
        bench.events.clear()
    work = bench.folder if bench.kind == "local" else Path(action.folder) / "work"
    assert (work / "calls").read_text() == "xx"


@ALL
@pytest.mark.parametrize(
    ("task", "type", "message"),
    [("raises", "ValueError", "no"), ("exits", "SystemExit", "the task called sys.exit(3)")],
)
def test_a_task_that_fails_leaves_its_error(
    bench: Bench, task: str, type: str, message: str
) -> None:
    action = bench.action(task)
    event = bench.run(action)
    error = outcome(action, event).error
    assert event.kind == "failed" and error is not None
    assert (error.type, error.message) == (type, message)


@pytest.mark.parametrize(
    ("task", "inputs", "kind", "code", "why"),
    [
        ("ends", {"code": 0}, "succeeded", 0, "without a result"),
        ("ends", {"code": 5}, "failed", 5, "exit code 5"),
        ("signalled", {"number": signal.SIGABRT}, "failed", 134, "signal 6 (Aborted)"),
        ("signalled", {"number": signal.SIGKILL}, "lost", 137, "was killed (SIGKILL)"),
    ],
)
def test_an_end_without_a_result_is_no_success(
    bench: Bench, task: str, inputs: dict[str, Any], kind: str, code: int, why: str
) -> None:
    """Exit codes and signals are told apart; a worker that was killed is lost."""
    action = bench.action(task, **inputs)
    event = bench.run(action)
    result = outcome(action, event)
    assert (event.kind, event.exit_code) == (kind, code)
    assert result.phase == "failed" and result.error and why in result.error.message


def test_a_worker_that_is_killed_from_outside_is_lost(bench: Bench) -> None:
    """It does not matter who has killed it; nothing that it has started goes on."""
    bench.engine.submit(bench.action("stubborn"))
    bench.until_printed("started")
    bench.kill()
    bench.until(lambda: bench.events)
    assert [(event.kind, event.exit_code) for event in bench.events] == [("lost", 137)]


def test_an_attempt_that_is_asked_to_end_cleans_up(bench: Bench) -> None:
    """Its `finally` runs, and all its processes end, also those in another session."""
    action = bench.action("waits")
    bench.engine.submit(action)
    bench.until_printed("started")
    bench.engine.cancel(action, at_once=False)
    bench.until(lambda: bench.events)
    assert [event.kind for event in bench.events] == ["cancelled"]
    # The signal may come before the end of the first line.
    assert bench.logged(action).replace(b"\n", b"") == b"startedcleaned up"
    bench.engine.cancel(action, at_once=True)  # It has ended: nothing happens.
    bench.engine.cancel(bench.action("waits", "other"), at_once=True)
    assert bench.engine.events() == []


def test_an_attempt_that_ignores_sigterm_is_killed(bench: Bench) -> None:
    action = bench.action("stubborn")
    bench.engine.submit(action)
    bench.until_printed("started")
    bench.engine.cancel(action, at_once=False)
    bench.until_printed("asked")
    assert bench.events == [] and bench.engine.running() == [action]
    bench.engine.cancel(action, at_once=True)
    bench.until(lambda: bench.events)
    assert [event.kind for event in bench.events] == ["cancelled"]


@pytest.mark.parametrize("bench", ["local"], indirect=True)
def test_an_interruption_of_a_local_task_reaches_the_caller(bench: Bench) -> None:
    """The attempt has ended then."""
    action = bench.action("signalled", number=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        bench.engine.submit(action)
    assert bench.engine.running() == []
    assert [event.kind for event in bench.engine.events()] == ["cancelled"]


def test_output_reaches_the_reader_and_the_log_of_its_attempt(bench: Bench) -> None:
    """The output of the root is passed on as it is, and each attempt has its part of the log."""
    action = bench.action("two_streams")
    for attempt in (action, action._replace(attempt=2)):
        bench.run(attempt)
    assert bench.sink.data == {1: b"out 1\nout 2" * 2, 2: b"err 1\n" * 2}
    assert sorted(bench.logged(action)) == sorted(b"out 1\nout 2err 1\n" * 2)
    times = Path(f"{action.folder}/log.times").read_text().splitlines()
    assert sorted({line.split()[2] for line in times}) == ["1", "2"]


def test_lines_of_a_child_begin_with_its_name(bench: Bench) -> None:
    """A last line without an end gets one; the log has the bytes as they were written."""
    child = bench.action("two_streams", "a123456789")._replace(parent="a0")
    bench.run(child)
    name = b"[two_streams a12345] "
    assert bench.sink.data == {
        1: name + b"out 1\n" + name + b"out 2\n",
        2: name + b"err 1\n",
    }
    assert sorted(bench.logged(child)) == sorted(b"out 1\nout 2err 1\n")


def test_a_child_that_prints_nothing_has_no_log(bench: Bench) -> None:
    child = bench.action("succeeds", x=1)._replace(parent="a0")
    bench.run(child)
    assert not os.path.exists(f"{child.folder}/log")


def test_much_output_arrives_whole_at_a_slow_reader(bench: Bench) -> None:
    """While the reader takes nothing, the task waits, but other attempts go on."""
    pipe = Pipe()
    engine = bench.make(pipe)
    size = 10 << 20
    loud, quiet = bench.action("prints", size=size), bench.action("succeeds", "a1", x=1)
    engine.submit(loud)
    bench.until(lambda: engine.waits().write, engine)
    assert bench.run(quiet, engine).action == quiet
    assert engine.running() == [loud]
    found = pipe.read()
    while not bench.events:
        bench.turn(engine)
        found += pipe.read()
    found += pipe.read()
    expected = bytes(range(256)) * (size // 256)
    assert found == pipe.fill + expected and bench.logged(loud) == expected
    assert [event.kind for event in bench.events] == ["succeeded"]
    pipe.close()


def test_lines_of_children_stay_whole_at_a_slow_reader(bench: Bench) -> None:
    """Lines of different children are not mixed, however slowly they are read."""
    piecemeal = Piecemeal()
    engine = bench.make(piecemeal)
    for name in "xyz":
        action = bench.action("prints_lines", name * 9, letter=name, count=1000)
        engine.submit(action._replace(parent="a0"))
    bench.until(lambda: len(engine.waits().write) == 3, engine)
    piecemeal.is_open = True
    bench.until(lambda: len(bench.events) == 3, engine)
    assert Counter(piecemeal.data[1].splitlines()) == {
        f"[prints_lines {6 * name}] {90 * name}".encode(): 1000 for name in "xyz"
    }


def test_a_line_of_a_child_without_an_end_is_cut(bench: Bench) -> None:
    """It is passed on in pieces, so it needs no memory of its own size; the log has it whole."""
    child = bench.action("prints_lines", letter="x" * (1 << 20), count=0)._replace(parent="a0")
    bench.run(child)
    lines = bench.sink.data[1].splitlines()
    assert len(lines) > 1 and all(line.startswith(b"[prints_lines ") for line in lines)
    assert b"".join(line.partition(b"] ")[2] for line in lines) == b"x" * (1 << 20)
    assert bench.logged(child) == b"x" * (1 << 20)


def test_the_end_waits_for_the_reader_without_turning(bench: Bench) -> None:
    """An attempt has ended when its output was taken; until then only the reader is waited for."""
    pipe = Pipe()
    engine = bench.make(pipe)
    engine.submit(bench.action("two_streams"))
    bench.until(lambda: engine.waits() == Waits([], [pipe.output_descriptor(1)], None), engine)
    assert bench.events == []
    found = b""
    while not bench.events:
        found += pipe.read()
        bench.turn(engine)
    found += pipe.read()
    assert sorted(found) == sorted(pipe.fill + b"out 1\nout 2err 1\n")
    pipe.close()


def test_attempts_end_in_any_order(bench: Bench) -> None:
    """Several attempts run at once, and each end is reported when it comes."""
    actions = [bench.action("gated", f"a{number}") for number in range(3)]
    for action in actions:
        gate = Path(action.folder) / "work/gate"
        gate.parent.mkdir(parents=True)
        os.mkfifo(gate)
        bench.engine.submit(action)
    bench.until(lambda: bench.sink.data[1].count(b"started") == 3)
    assert bench.engine.running() == actions and bench.events == []
    for at in (2, 0, 1):
        # Opening it returns when the task opens it, too.
        os.close(os.open(f"{actions[at].folder}/work/gate", os.O_WRONLY))
        bench.until(lambda: bench.events)
        assert [(event.action, event.kind) for event in bench.events] == [
            (actions[at], "succeeded")
        ]
        bench.events.clear()
    assert bench.engine.running() == []


def test_nothing_turns_while_a_task_sleeps(bench: Bench) -> None:
    """The engine wakes its caller for output and for ends, and not in between."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no descriptors of processes")
    bench.engine.submit(bench.action("sleeps", seconds=0.5))
    bench.until_printed("asleep")
    assert bench.engine.waits().seconds is None
    before = bench.turns
    bench.until_printed("awake")
    assert bench.turns - before == 1
    bench.until(lambda: bench.events)
    assert bench.turns - before < 10


def test_closing_leaves_nothing_behind(bench: Bench) -> None:
    """Whatever still runs is killed, with all its processes."""
    for number in range(2):
        bench.engine.submit(bench.action("stubborn", f"a{number}"))
    bench.until(lambda: bench.sink.data[1].count(b"started") == 2)
    assert Counter(action.id for action in bench.engine.running()) == {"a0": 1, "a1": 1}
    bench.engine.close()
    assert bench.engine.running() == [] and bench.engine.events() == []
    assert bench.engine.waits() == Waits([], [], None)
    bench.engine.close()


@pytest.mark.parametrize("bench", ["process"], indirect=True)
@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_a_worker_that_cannot_be_started_is_an_error(bench: Bench, python: str) -> None:
    """The error has the reason, and no process is left."""

    def start(action: Action) -> Worker:
        worker = bench.start(action, python)
        assert isinstance(worker, Worker)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        return worker

    refuses(ProcessEngine(bench.sink, start), bench.action("waits"), RuntimeSystemError)
    assert not any(worker.pid and psutil.pid_exists(worker.pid) for worker in bench.workers)


@pytest.mark.parametrize("bench", [CONTAINERS], indirect=True)
def test_a_container_that_cannot_be_started_is_an_error(bench: Bench, place: Place) -> None:
    """The error has the reason, and no container is left."""
    for broken in (replace(place, image="sha256:" + 64 * "0"), replace(place, network="nowhere")):
        refuses(
            DockerEngine(broken, bench.sink, connect(), shares=False),
            bench.action("waits"),
            FlyteError,
        )


def refuses(engine: Engine, action: Action, error: type[FlyteError]) -> None:
    """Check that an engine cannot start an attempt, and has no trace of it."""
    child = action._replace(parent="a0")
    with pytest.raises(error) as caught:
        engine.submit(child)
    assert type(caught.value) in (RuntimeSystemError, EngineUnavailable)
    assert engine.running() == [] and engine.waits() == Waits([], [], None)
    assert not os.path.exists(f"{child.folder}/log")
    engine.close()


def test_an_action_that_cannot_be_written_is_an_error(bench: Bench) -> None:
    """The attempt is not begun."""
    action = bench.action("succeeds", x=1)
    Path(action.folder).parent.write_text("a file in its place")
    with pytest.raises(StoreUnavailable, match="Cannot write an action"):
        bench.engine.submit(action)
    assert bench.engine.running() == []
