"""Fixtures for all tests, and the settings of hypothesis."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from flyte_build.cas.cache import Cache
from tests.support.caches import opened
from tests.support.command import TASKS, Shell
from tests.support.engines import Engine, docker_engine
from tests.support.programs import NEEDS, install, missing
from tests.support.registries import Server, serve
from tests.support.servers import Servers

# In a shell's background and under nohup these are ignored, and what the tests start would inherit
# that. A handler does not outlive an exec; this process itself goes on ignoring the hang-up.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

settings.register_profile(
    "flyte",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="CI" in os.environ,
    database=None,
)


settings.load_profile("flyte")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """An empty cache, which must not report anything."""
    with opened(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty directory for a project."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's own store."""
    monkeypatch.setenv("FLYTE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def flyte(tmp_path: Path) -> Iterator[Shell]:
    """A project with a file of tasks."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "tasks.py").write_text(TASKS)
    yield Shell(project, tmp_path / "home")
    for folder, _, _ in os.walk(tmp_path / "home"):
        os.chmod(folder, 0o700)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry without a login, for all tests together."""
    with serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker Engine, for all tests together."""
    with docker_engine() as host:
        yield Engine(host)


@pytest.fixture
def repository(registry: Server) -> str:
    """A repository of that registry which no other test uses."""
    return registry.repository(f"test/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Registries of every kind and a proxy, for all tests; each starts at its first use."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    with servers.stack:
        yield servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print at the end which programs the skipped tests lack, and how to install them."""
    lacking = missing(*NEEDS)
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", ())
        if any(program in str(report.longrepr) for program in lacking)
    ]
    if skipped:
        terminalreporter.section("missing programs")
        terminalreporter.line(
            f"{len(skipped)} tests were skipped: {', '.join(lacking)} not found. To run them, too:"
            f"\n\n    {install(lacking)}\n"
        )


@pytest.hookimpl(tryfirst=True)  # Before the groups are read.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one worker run all tests of the container engine, so that one engine is started.

    Two that start at once create the same chains of the firewall, and one of them fails.
    """
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("engine"))
