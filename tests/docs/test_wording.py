"""The English of docstrings, help texts, messages and documents: CONTRIBUTING, "Words"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.quick

PARTS = ("flyte_build", "cas", "bundler", "images", "runner", "cli")

BEGINNINGS = re.compile(
    r"(?:What|Where|Who|Whom|Whose|Which|How|Why|The same|Those|Something|Somebody|Nobody)\b"
)
"""A docstring says what a thing is or does, not what a question about it would be."""

PHRASES = {
    r"(?<![Tt]here )\b(?:is|are|was|were) no\b(?! longer| more than)": "must be X, not Y; is not a",
    r"\b[Nn]obody\b": "no one; or name the actor",
    r"\bshall\b": "must, should; or an imperative",
    r"\b(?:can|cannot|could|to) be had\b": "cannot VERB X",
    r"\bnot acted on\b": "ignored",
    r"\bfor people\b": "human-readable",
    r"\b(?:is|are|was|were|be) (?:not )?said\b": "is reported, is noted; no X is configured",
    r"\bput in (?:the )?place of\b": "replace, overwrite",
    r"\bif (?:none|nothing|it) is(?: not)? given\b": "default: X",
    r"\b[Ff]olders?\b": "directory",
    r"\b(?:\d+|hex|hexadecimal|control|special|strange) signs?\b": "character",
    r"\bpatience\b": "retry budget",
    r"\b[Ww]hat [^.,;:]{1,40} (?:came|comes|come) to\b": "result",
    r"\bof then\b": "original",
    r"\b(?:is|are) given together\b": "cannot be used together",
    r"\bsays? so\b": "report it",
}
"""Phrases that read as a translation, and their native forms."""

FILES = sorted(path for part in PARTS for path in (CHECKOUT / part).rglob("*.py"))
TESTS = sorted(path for part in ("tests", "benchmarks") for path in (CHECKOUT / part).rglob("*.py"))
DOCUMENTS = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *(CHECKOUT / "docs").glob("*.md"),
]


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield all docstrings, also those below an assignment, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def sentences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield all strings that may be prose: those with a space; of an f-string, its fixed parts."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                yield (
                    node.lineno,
                    "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in values),
                )
            case ast.Constant(value=str(text)) if " " in text:
                yield node.lineno, text


def wrong(line: int, text: str) -> Iterator[str]:
    """Yield each phrase of a text that has a native form."""
    plain = " ".join(re.sub(r"`[^`]*`", "X", text).split())
    for phrase, native in PHRASES.items():
        for match in re.finditer(phrase, plain):
            context = plain[max(0, match.start() - 30) : match.end() + 20]
            yield f"{line}: {match[0]!r} in {context!r}; say: {native}"


def questions(tree: ast.Module) -> Iterator[str]:
    """Yield each docstring that begins like a question."""
    for line, text in docstrings(tree):
        if match := BEGINNINGS.match(text.strip()):
            yield f"{line}: begins with {match[0]!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_library_speaks_plain_english(path: Path) -> None:
    tree = ast.parse(path.read_text())
    prose = {each for line, text in sentences(tree) for each in wrong(line, text)}
    assert [*questions(tree), *sorted(prose)] == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_docstrings_of_tests_speak_plain_english(path: Path) -> None:
    tree = ast.parse(path.read_text())
    prose = [each for line, text in docstrings(tree) for each in wrong(line, text)]
    assert [*questions(tree), *prose] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_speak_plain_english(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [each for number, line in lines for each in wrong(number, line)] == []
