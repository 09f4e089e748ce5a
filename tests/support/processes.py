"""Python code in other processes."""

from __future__ import annotations

import subprocess
import sys


def process(code: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start Python code in another process, whose output must be read."""
    settings = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        **options,
    }
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **settings)  # type: ignore[call-overload,no-any-return]  # Options are the caller's.


def run(code: str, *arguments: str, **options: object) -> str:
    """Run Python code in another process, and return its output."""
    with process(code, *arguments, **options) as started:
        out, errors = started.communicate(timeout=100)
    assert started.returncode == 0, errors
    return out.strip()
