"""The built-in task of `flyte run python-script`: a plain script, run as `python SCRIPT` runs it.

It stays where it is and is not bundled: what it needs is only known once it has run.
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
    """Run a script.

    Args:
        path: The script, absolute.
        arguments: What stands after it on its command line.
        directory: The directory that it starts in.
    """
    with subprocess.Popen([sys.executable, "-u", path, *arguments], cwd=folder) as process:
        # A signal that ends this process has reached the script too, and leaves it its time.
        code = process.wait()
    if code == -signal.SIGKILL:
        raise OOMError(
            "the script was killed (SIGKILL), most likely because the machine ran out of memory"
        )
    if code < 0:
        raise RuntimeUserError(f"the script ended with signal {-code} ({signal.strsignal(-code)})")
    if code:
        raise RuntimeUserError(f"the script ended with exit code {code}")
