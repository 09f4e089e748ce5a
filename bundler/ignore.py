"""Which files stay out of a bundle: gitignore semantics (git, Documentation/gitignore.txt), and our built-in rules.

`.gitignore` and `.flyteignore` of a folder and of the folders above it, up to the root, are read; the last pattern that
matches decides, `.flyteignore` after `.gitignore`, deeper files after higher ones. Files above the root, `.git/info/exclude`
and a user's global file are not read: a bundle is the same in every folder and for every user.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_BUILT_IN_NAME = "built in"
_FOLDER = "ps_d"  # The group that matches the end of a folder in pathspec's expressions.
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


class Pattern(NamedTuple):
    """A line of an ignore file: where it stands, as it is written, and what it means."""

    where: str
    text: str
    meaning: GitIgnoreSpecPattern

    def matches(self, name: str, is_folder: bool) -> bool:
        """Whether it decides for this very name. (What lies below an excluded folder is never asked for.)"""
        expression = self.meaning.regex
        if expression is None:
            return False
        match = expression.search(name)
        if match is not None and match.groupdict().get(_FOLDER) is None:
            return True
        found = expression.finditer(name + "/") if is_folder else ()
        return any(match.groupdict().get(_FOLDER) and match.end(_FOLDER) == len(name) + 1 for match in found)


class RuleFile(NamedTuple):
    """The patterns of one ignore file in `folder` (relative to the root, "" or ending in "/")."""

    folder: str
    patterns: tuple[Pattern, ...]
    any_of_them: re.Pattern[str]
    """Matches whatever any of the patterns may decide: most names are decided by none."""

    @classmethod
    def parse(cls, folder: str, name: str, text: str) -> "RuleFile":
        """Read patterns; a line that is no pattern is passed over, as git does."""
        patterns = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                meaning = GitIgnoreSpecPattern(line.removesuffix("\r"))
            except ValueError:
                continue
            if meaning.include is not None:
                where = _BUILT_IN_NAME if name == _BUILT_IN_NAME else f"{folder}{name}:{number}"
                patterns.append(Pattern(where, line, meaning))
        expressions = [pattern.meaning.regex.pattern for pattern in patterns if pattern.meaning.regex is not None]
        together = "|".join(f"(?:{expression.replace(f'(?P<{_FOLDER}>', '(?:')})" for expression in expressions)
        return cls(folder, tuple(patterns), re.compile(together or r"(?!)"))


class Rules:
    """The rules that apply in one folder. Immutable: a folder below has rules of its own, made by `within`."""

    def __init__(self, files: tuple[RuleFile, ...]) -> None:
        self._files = files

    @classmethod
    def built_in(cls) -> "Rules":
        """The rules that always apply first, so that any ignore file can overrule them."""
        return cls((RuleFile.parse("", _BUILT_IN_NAME, _BUILT_IN),))

    def within(self, files: list[RuleFile]) -> "Rules":
        """These rules and then those of `files`."""
        return Rules((*self._files, *files)) if files else self

    def excludes(self, path: str, is_folder: bool) -> str | None:
        """The rule (`file:line: pattern`) that keeps `path` out, or None when it is in."""
        for file in reversed(self._files):
            name = path[len(file.folder) :]
            if not file.any_of_them.search(name + "/" * is_folder):
                continue
            for pattern in reversed(file.patterns):
                if pattern.matches(name, is_folder):
                    return f"{pattern.where}: {pattern.text}" if pattern.meaning.include else None
        return None
