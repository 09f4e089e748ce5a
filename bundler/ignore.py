"""Which files stay out of a bundle: gitignore semantics (git, Documentation/gitignore.txt), and our built-in rules.

`.gitignore` and `.flyteignore` of a folder and of the folders above it, up to the root, are read; the last pattern that
matches decides, `.flyteignore` after `.gitignore`, deeper files after higher ones. Files above the root, `.git/info/exclude`
and a user's global file are not read: a bundle is the same in every folder and for every user.
"""

from __future__ import annotations

from typing import NamedTuple

import pathspec

_BUILT_IN = """
.git
.hg
.svn
.bzr
.jj
.venv/
node_modules/
__pycache__/
*.py[cod]
.mypy_cache/
.pytest_cache/
.ruff_cache/
.hypothesis/
.tox/
.nox/
.cache/
.eggs/
*.egg-info/
*.dist-info/
build/
dist/
htmlcov/
.coverage
.ipynb_checkpoints/
.terraform/
.idea/
.vscode/
.flyte/
.DS_Store
*.sw[op]
*~
"""


class RuleFile(NamedTuple):
    """The patterns of one ignore file in `folder` (relative to the root, "" or ending in "/")."""

    folder: str
    source: str
    spec: pathspec.GitIgnoreSpec
    lines: list[tuple[int, str]]

    @classmethod
    def parse(cls, folder: str, name: str, text: str) -> "RuleFile":
        """Read patterns; a line that is no pattern is passed over, as git does."""
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line]
        return cls(folder, folder + name, pathspec.GitIgnoreSpec.from_lines(line for _, line in lines), lines)


class Rules:
    """The rules that apply in one folder. Immutable: a folder below has rules of its own, made by `within`."""

    def __init__(self, files: tuple[RuleFile, ...]) -> None:
        self._files = files

    @classmethod
    def built_in(cls) -> "Rules":
        """The rules that always apply first, so that any ignore file can overrule them."""
        return cls((RuleFile.parse("", "built in", _BUILT_IN),))

    def within(self, files: list[RuleFile]) -> "Rules":
        """These rules and then those of `files`."""
        return Rules((*self._files, *files)) if files else self

    def excludes(self, path: str, is_folder: bool) -> str | None:
        """The rule (`file:line: pattern`) that keeps `path` out, or None when it is in."""
        asked = path + "/" if is_folder else path
        for file in reversed(self._files):
            result = file.spec.check_file(asked[len(file.folder) :])
            if result.include is not None and result.index is not None:
                number, pattern = file.lines[result.index]
                where = file.source if file.source == "built in" else f"{file.source}:{number}"
                return f"{where}: {pattern}" if result.include else None
        return None
