"""A task that reads files: `include` takes them into the bundle, and the working directory has them
where they were.

flyte run examples/files.py count --word bundle
"""

from pathlib import Path

import flyte

env = flyte.TaskEnvironment(name="files", include=["data/*.txt"])


@env.task
def count(word: str) -> dict[str, int]:
    """Count a word in each of the files in `examples/data`.

    Args:
        word: The word to look for.
    """
    folder = Path(__file__).parent / "data"
    return {
        path.name: path.read_text(encoding="utf-8").split().count(word)
        for path in sorted(folder.glob("*.txt"))
    }
