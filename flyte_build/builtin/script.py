"""The built-in task of `flyte run python-script`: a plain script, run as `python SCRIPT` runs it.

It is run in place, not from a bundle, since the files that it needs are known only after a run.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from flyte_build.declarations.environment import TaskEnvironment
from flyte_build.errors import OOMError, RuntimeUserError

env = TaskEnvironment(name="python-script")


@env.task
def script(path: str, arguments: list[str], folder: str) -> None:
    """Run the script at an absolute `path` with `arguments`, in the working directory `folder`."""
    with subprocess.Popen([sys.executable, "-u", path, *arguments], cwd=folder) as process:
        # A signal that terminates this process reaches the script as well; let it finish.
        code = process.wait()
    if code == -signal.SIGKILL:
        raise OOMError(
            "SIGKILL",
            "the script was killed (SIGKILL), most likely because the machine ran out of memory",
        )
    if code < 0:
        raise RuntimeUserError(
            f"signal {-code}",
            f"the script ended with signal {-code} ({signal.strsignal(-code)})",
        )
    if code:
        raise RuntimeUserError(f"exit code {code}", f"the script ended with exit code {code}")
