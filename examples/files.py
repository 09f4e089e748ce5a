"""A task that reads files.

`include` adds them to the bundle, where they keep their paths.

flyte run examples/files.py count --word bundle
"""

from pathlib import Path

import flyte

env = flyte.TaskEnvironment(name="files", include=["data/*.txt"])


@env.task
def count(word: str) -> dict[str, int]:
    """Count a word in each file of `examples/data`.

    Args:
        word: The word to look for.
    """
    folder = Path(__file__).parent / "data"
    return {
        path.name: path.read_text(encoding="utf-8").split().count(word)
        for path in sorted(folder.glob("*.txt"))
    }
