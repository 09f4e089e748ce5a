"""Files that stay out of a bundle: gitignore semantics (git, Documentation/gitignore.txt).

Besides the built-in rules, `.gitignore` and `.flyteignore` of a directory and of its parents up to
the root are read. The last pattern that matches decides: those of `.flyteignore` come after those
of `.gitignore`, and those of subdirectories after those of their parents. Files above the root,
`.git/info/exclude` and a user's global file are not read: a bundle is the same in every directory
and for every user.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_BUILT_IN_NAME = "built in"
_FOLDER = "ps_d"  # The group that matches the end of a directory in pathspec's expressions.
# To git, `a/**/` means the directories in `a`; to pathspec, `a` itself.
_INSIDE = re.compile(r"(?<=[^/])/\*\*/$")
_ANYWHERE = "^(?:.+/)?"  # The prefix of its expressions for names at any depth.
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
flyte.lock
/.flyte-roots/
.DS_Store
*.sw[op]
*~
"""


class Pattern(NamedTuple):
    """A line of an ignore file: its location, its text, and its parsed meaning."""

    where: str
    text: str
    meaning: GitIgnoreSpecPattern

    def matches(self, name: str, is_folder: bool) -> bool:
        """Whether the pattern matches this very name.

        Names below an excluded directory are never passed to it.
        """
        expression = self.meaning.regex
        if expression is None:
            return False
        match = expression.search(name)
        if match is not None and match.groupdict().get(_FOLDER) is None:
            return True
        found = expression.finditer(name + "/") if is_folder else ()
        return any(
            match.groupdict().get(_FOLDER) and match.end(_FOLDER) == len(name) + 1
            for match in found
        )


class RuleFile(NamedTuple):
    """The patterns of one ignore file in `folder` (relative to the root, "" or ending in "/")."""

    folder: str
    patterns: tuple[Pattern, ...]
    names: re.Pattern[str] | None
    paths: re.Pattern[str] | None
    """Unions of all patterns, by name alone and by path: most names match none of them."""

    @classmethod
    def parse(cls, folder: str, name: str, text: str) -> RuleFile:
        """Parse an ignore file; an invalid line is skipped, as in git."""
        patterns = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                meaning = GitIgnoreSpecPattern(_INSIDE.sub("/**/*/", line.removesuffix("\r")))
            except ValueError:
                continue
            if meaning.include is not None:
                where = _BUILT_IN_NAME if name == _BUILT_IN_NAME else f"{folder}{name}:{number}"
                patterns.append(Pattern(where, line, meaning))
        by_name: list[str] = []
        by_path: list[str] = []
        for pattern in patterns:
            expression = (
                pattern.meaning.regex.pattern.replace(f"(?P<{_FOLDER}>", "(?:")
                if pattern.meaning.regex
                else "(?!)"
            )
            anywhere = expression.startswith(_ANYWHERE) and "/" not in pattern.text.removeprefix(
                "!"
            ).removeprefix("**/").rstrip("/ ")
            (by_name if anywhere else by_path).append(
                expression.removeprefix(_ANYWHERE) if anywhere else expression
            )
        return cls(folder, tuple(patterns), _any_of(by_name), _any_of(by_path))

    def may_decide(self, path: str, name: str) -> bool:
        """Whether a pattern may match `path` (relative to the root), whose last part is `name`.

        The path and name of a directory end in "/".
        """
        by_name = self.names is not None and self.names.match(name)
        return bool(
            by_name or (self.paths is not None and self.paths.search(path[len(self.folder) :]))
        )


class Rules:
    """The rules of one directory. Immutable: `within` returns those of a subdirectory."""

    def __init__(self, files: tuple[RuleFile, ...]) -> None:
        self._files = files

    @classmethod
    def built_in(cls) -> Rules:
        """Return the built-in rules, which come first, so that ignore files can overrule them."""
        return cls((RuleFile.parse("", _BUILT_IN_NAME, _BUILT_IN),))

    def within(self, files: list[RuleFile]) -> Rules:
        """Return these rules followed by those of `files`."""
        return Rules((*self._files, *files)) if files else self

    def excludes(self, path: str, is_folder: bool) -> str | None:
        """Return the rule (`file:line: pattern`) that excludes `path`, or None if none does."""
        whole = path + "/" if is_folder else path
        last = whole[path.rfind("/") + 1 :]
        for file in reversed(self._files):
            if not file.may_decide(whole, last):
                continue
            for pattern in reversed(file.patterns):
                if pattern.matches(path[len(file.folder) :], is_folder):
                    return f"{pattern.where}: {pattern.text}" if pattern.meaning.include else None
        return None


def _any_of(expressions: list[str]) -> re.Pattern[str] | None:
    return (
        re.compile("|".join(f"(?:{expression})" for expression in expressions))
        if expressions
        else None
    )
