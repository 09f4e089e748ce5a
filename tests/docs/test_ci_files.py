"""The workflow files of `docs/ci.md`: main warms the cache that pull requests read.

Pull requests write to their own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cas.registry.test_shared_cache import records
from tests.support.checkout import CHECKOUT
from tests.support.command import FLYTE, Shell

PAGE = (CHECKOUT / "docs" / "ci.md").read_text()
GITHUB, GITLAB = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S))


def github_jobs() -> list[tuple[str, Mapping[str, str]]]:
    """Return the commands of a push and of a pull request on GitHub, with their variables."""
    steps: list[dict[str, Any]] = [step for step in GITHUB["jobs"]["warm"]["steps"] if "if" in step]
    assert ["push" in step["if"] for step in steps] == [True, False]
    return [(step["run"], step["env"]) for step in steps]


def gitlab_jobs() -> list[tuple[str, Mapping[str, str]]]:
    """Return the commands of a push and of a merge request on GitLab, with their variables."""
    lines = "\n".join(line for line in GITLAB["warm"]["script"] if line.startswith("flyte"))
    return [(lines, rule["variables"]) for rule in GITLAB["warm"]["rules"]]


@pytest.mark.parametrize("jobs", [github_jobs, gitlab_jobs], ids=["github", "gitlab"])
def test_main_warms_and_a_pull_request_writes_its_own(
    flyte: Shell, repository: str, tmp_path: Path, jobs: Any
) -> None:
    """The commands work as they stand against a registry, each on a fresh machine."""
    summary = tmp_path / "summary.md"

    def run(job: tuple[str, Mapping[str, str]], machine: str) -> str:
        commands, variables = job
        shell = Shell(flyte.project, tmp_path / machine)
        given = {
            name: re.sub(r"\$\{\{ vars.REGISTRY \}\}|\$CI_REGISTRY_IMAGE", repository, text)
            for name, text in variables.items()
        }
        environment = {
            **shell.environment,
            **given,
            "GITHUB_STEP_SUMMARY": str(summary),
            "PATH": f"{Path(FLYTE).parent}:/usr/bin:/bin",
        }
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=flyte.project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    main, pull = jobs()
    assert "made" in run(main, "main")
    before = records(f"{repository}/main")
    assert len(before) == 1 and f"{repository}/main" in run(pull, "first pull request")
    with open(flyte.project / "tasks.py", "a") as file:
        file.write("\n# proposed\n")
    assert "made" in run(pull, "second pull request")
    own = {
        name.rpartition("/")[2] for name in re.findall(r"REGISTRY[^,]*?/([a-z-]+)", str(pull[1]))
    } - {"main"}
    assert (
        records(f"{repository}/main") == before and len(records(f"{repository}/{own.pop()}")) == 1
    )
    page = summary if summary.exists() else flyte.project / "summary.md"
    assert "| tasks.py | bundle | made |" in page.read_text()
