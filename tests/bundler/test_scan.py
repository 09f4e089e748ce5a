"""Scans: which files are included, excluded or refused, and which ones are not read again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyte_build.bundler.budget import Budget
from flyte_build.bundler.scan import Scanner
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.errors import BudgetExceeded, ScanError, SecretRefused
from tests.support.caches import opened, scan, tree_of
from tests.support.files import (
    Executable,
    Files,
    Link,
    clock_moves,
    entries_of,
    read_files,
    temporary,
    write_files,
)
from tests.support.needs import need


def included(cache: Cache, root: Path) -> set[str]:
    """Return the paths that a scan includes."""
    return {entry.name for entry in scan(cache, root)[0].entries()}


# --- Ignoring

CASES: dict[str, tuple[Files, set[str]]] = {
    "a pattern": (
        {".gitignore": b"*.log\n", "a.py": b"", "x.log": b"", "d/y.log": b""},
        {".gitignore", "a.py"},
    ),
    "anchored": (
        {".gitignore": b"/a\nd/b\n", "a": b"", "e/a": b"", "d/b": b"", "e/d/b": b""},
        {".gitignore", "e/a", "e/d/b"},
    ),
    "folders alone": ({".gitignore": b"x/\n", "x/a": b"", "d/x": b""}, {".gitignore", "d/x"}),
    "negation": (
        {".gitignore": b"*.log\n!keep.log\n", "a.log": b"", "keep.log": b""},
        {".gitignore", "keep.log"},
    ),
    "no way back into a directory": (
        {".gitignore": b"d/\n!d/keep\n", "d/keep": b"", "a": b""},
        {".gitignore", "a"},
    ),
    "way back": (
        {".gitignore": b"d/*\n!d/keep\n", "d/keep": b"", "d/x": b""},
        {".gitignore", "d/keep"},
    ),
    "nested": (
        {"d/.gitignore": b"/x\n", "x": b"", "d/x": b"", "d/e/x": b""},
        {"d/.gitignore", "x", "d/e/x"},
    ),
    "nested wins": (
        {".gitignore": b"*.log\n", "d/.gitignore": b"!*.log\n", "a.log": b"", "d/a.log": b""},
        {".gitignore", "d/.gitignore", "d/a.log"},
    ),
    ".flyteignore wins": (
        {".gitignore": b"a\n!b\n", ".flyteignore": b"!a\nb\n", "a": b"", "b": b"", "c": b""},
        {".gitignore", ".flyteignore", "a", "c"},
    ),
    ".gitignore below wins over .flyteignore above": (
        {".flyteignore": b"*.log\n", "d/.gitignore": b"!a.log\n", "d/a.log": b"", "a.log": b""},
        {".flyteignore", "d/.gitignore", "d/a.log"},
    ),
    "built in, at any depth": (
        {
            "a.py": b"",
            "p/.git/HEAD": b"",
            "p/__pycache__/a.pyc": b"",
            "p/q/node_modules/x/y.js": b"",
            "p/.venv/lib/x.py": b"",
            "p/build/x": b"",
            "dist/x": b"",
            "p/x.egg-info/PKG-INFO": b"",
            "p/.mypy_cache/x": b"",
            "p/.DS_Store": b"",
            "flyte.lock": b"",
            "p/a.pyc": b"",
            ".hg/x": b"",
            "p/.tox/x": b"",
            "p/.ipynb_checkpoints/x": b"",
            "p/.idea/x": b"",
            "p/a.py~": b"",
            "p/.a.py.swp": b"",
        },
        {"a.py"},
    ),
    ".git as a file": (
        {"a.py": b"", "sub/.git": b"gitdir: ../.git/modules/sub\n", "sub/b.py": b""},
        {"a.py", "sub/b.py"},
    ),
    "built-in rules can be overruled": (
        {".flyteignore": b"!build/\n", "build/x": b"", "p/build/y": b""},
        {".flyteignore", "build/x", "p/build/y"},
    ),
    "files named like directories that are built in": (
        {"build": b"", "p/dist": b""},
        {"build", "p/dist"},
    ),
    "a virtual environment of any name": (
        {"env-3/pyvenv.cfg": b"", "env-3/lib/x.py": b"", "p/e/pyvenv.cfg": b"", "a": b""},
        {"a"},
    ),
    "comments, spaces and empty lines": (
        {
            ".gitignore": b"\n# a\n\\#b\n  \nc   \nd\\ \n",
            "a": b"",
            "#b": b"",
            "c": b"",
            "d ": b"",
            "# a": b"",
        },
        {".gitignore", "a", "# a"},
    ),
    "line ends of Windows": (
        {".gitignore": b"a\r\nb\r\n", "a": b"", "b": b"", "c": b""},
        {".gitignore", "c"},
    ),
    "byte order mark": (
        {".gitignore": b"\xef\xbb\xbfa\nb\n", "a": b"", "b": b"", "c": b""},
        {".gitignore", "c"},
    ),
    "line ends that are none to git": (
        {
            ".gitignore": "a\x0cb\nc\u2028d\n".encode(),
            "a": b"",
            "b": b"",
            "c": b"",
            "d": b"",
            "a\x0cb": b"",
            "c\u2028d": b"",
        },
        {".gitignore", "a", "b", "c", "d"},
    ),
    "not UTF-8": (
        {".gitignore": b"caf\xe9\n", "caf\udce9": b"", "cafe": b""},
        {".gitignore", "cafe"},
    ),
    "lines that are no patterns": (
        {".gitignore": b"!\n/\n\\\n[\n//\n***\\\nx\n", "x": b"", "y": b""},
        {".gitignore", "y"},
    ),
    "a link to a directory is no directory": (
        {".gitignore": b"x/\n", "d/a": b"", "x": Link(b"d")},
        {".gitignore", "d/a", "x"},
    ),
    "double stars": (
        {".gitignore": b"a/**/z\n**/q\n", "a/z": b"", "a/b/c/z": b"", "b/z": b"", "m/n/q": b""},
        {".gitignore", "b/z"},
    ),
}


@pytest.mark.parametrize("files, expected", CASES.values(), ids=CASES)
def test_what_is_ignored(cache: Cache, project: Path, files: Files, expected: set[str]) -> None:
    """Ignore rules have the semantics of gitignore.

    Our built-in rules come first, `.flyteignore` after `.gitignore`, and deeper files last.
    """
    write_files(project, files)
    assert included(cache, project) == expected


def test_what_is_out_is_listed_with_the_line_that_keeps_it_out(cache: Cache, project: Path) -> None:
    """Excluded files are listed with file, line number and pattern; directories end in a slash."""
    write_files(
        project,
        {
            ".gitignore": b"# logs\n\n*.log\n",
            "a.log": b"",
            "d/.flyteignore": b"x/\n",
            "d/x/y": b"",
            "__pycache__/z": b"",
            "v/pyvenv.cfg": b"",
        },
    )
    found = dict(scan(cache, project)[0].excluded())
    assert found.pop("v/").startswith("built in: a virtual environment")
    assert found == {
        "a.log": ".gitignore:3: *.log",
        "d/x/": "d/.flyteignore:1: x/",
        "__pycache__/": "built in: __pycache__/",
    }


parts = st.sampled_from(["a", "b", "c.py", "d.log", "e f", "foo", "bar"])
pattern_parts = st.sampled_from(
    ["a", "b", "*", "**", "*.py", "d.*", "?", "[ab]", "[!a]", "foo", "e f", "f*o", "ba?"]
)
patterns = st.builds(
    lambda negated, anchored, middle, folder: (
        "!" * negated + "/" * anchored + "/".join(middle) + "/" * folder
    ),
    st.booleans(),
    st.booleans(),
    st.lists(pattern_parts, min_size=1, max_size=3),
    st.booleans(),
)
# Not here: POSIX classes and a backslash at the end, which pathspec reads otherwise than git.
lines = patterns | st.sampled_from(
    [
        "",
        "# a",
        "a ",
        "\\a",
        "\\!a",
        "!",
        "/",
        "[",
        "[a",
        "a/**/b",
        "**/b",
        "a/**",
        "**",
        "[a-c]*",
        "*/",
    ]
)
ignored_trees = st.tuples(
    st.sets(st.lists(parts, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12),
    st.dictionaries(
        st.sampled_from(["", "a/", "b/", "a/b/", "foo/"]), st.lists(lines, max_size=5), max_size=3
    ),
)


@pytest.fixture(scope="module")
def repository() -> Any:
    """Return a git repository that reads no configuration but its own."""
    need("git")
    with temporary() as folder:
        subprocess.run(["git", "init", "-q", str(folder / "git")], check=True)
        yield folder / "git" / ".git"


@settings(max_examples=150)
@given(ignored_trees)
@example(({"a/a", "a/b/c"}, {"": ["a/**/"]}))
@example(({"foo/a", "b"}, {"": ["*", "!foo/"]}))
@example(({"foo/a", "foo/b"}, {"": ["foo/*", "!foo/a"]}))
@example(({"a/b/c.py"}, {"": ["a/**", "!a/b/", "!a/b/c.py"]}))
@example(({"a/b", "b"}, {"a/": ["!b"], "": ["b"]}))
@example(({"a/b/a"}, {"": ["/*/", "!/a/"]}))
def test_git_takes_the_same_files(
    repository: Path, given: tuple[set[str], dict[str, list[str]]]
) -> None:
    """A scan includes the files that `git ls-files` lists, for any `.gitignore` files."""
    paths, ignore_files = given
    files: dict[str | bytes, bytes] = {
        path: b"" for path in paths if not any(other.startswith(path + "/") for other in paths)
    }
    for prefix, content in ignore_files.items():
        if not any(prefix.startswith(f"{os.fsdecode(path)}/") for path in files):
            files[prefix + ".gitignore"] = "".join(line + "\n" for line in content).encode()
    with temporary() as folder, opened(folder / "cache") as cache:
        write_files(folder / "p", files)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(repository),
            "GIT_WORK_TREE": ".",
        }
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=folder / "p",
            env=environment,
            check=True,
            capture_output=True,
        )
        assert included(cache, folder / "p") == set(listed.stdout.decode().split("\0")) - {""}


# --- What is remembered


def test_a_warm_scan_reads_no_file(cache: Cache, project: Path) -> None:
    """A warm scan looks at each file once, reads none and writes nothing."""
    write_files(project, {f"d{n % 5}/f{n}.py": b"%d" % n for n in range(100)})
    write_files(project, {".gitignore": b"*.log\n", "a.log": b"", "l": Link(b"d1/f1.py")})
    clock_moves(project.parent)
    cold, counters = scan(cache, project)
    assert counters.snapshot()["files_read"] == 101 and not cold.unchanged
    before = cache.database.execute("SELECT * FROM stat")
    warm, counters = scan(cache, project)
    assert (
        warm.unchanged
        and counters.snapshot()["files_read"] == counters.snapshot()["bytes_hashed"] == 0
    )
    assert counters.snapshot()["files_stated"] == 102
    assert (
        warm.folders == cold.folders
        and warm.state == cold.state
        and cache.database.execute("SELECT * FROM stat") == before
    )


@pytest.mark.parametrize(
    "files",
    [
        {".venv/pyvenv.cfg": b"", ".venv/x.py": b""},
        {"venv/pyvenv.cfg": b"", "venv/x.py": b""},
        {".gitignore": b"venv\n", "venv/pyvenv.cfg": b""},
        {"node_modules/x.js": b"", ".git/HEAD": b"", "a.pyc": b""},
        {"empty/.gitignore": b""},
        {
            "l": Link(b"a.py"),
            "dangling": Link(b"nothing"),
            "to-folder": Link(b"."),
        },
    ],
    ids=[".venv", "venv", "ignored venv", "built in", "empty rules", "links"],
)
def test_a_scan_of_what_has_not_changed_says_so(
    cache: Cache, project: Path, files: dict[str, bytes]
) -> None:
    """The second scan of any project finds it unchanged, and saves nothing."""
    write_files(project, {"a.py": b"", **files})
    clock_moves(project.parent)
    scan(cache, project)
    assert scan(cache, project)[0].unchanged


def test_an_edit_reads_one_file(cache: Cache, project: Path) -> None:
    """After the edit of one file, only that file is read."""
    write_files(project, {f"f{n}.py": b"%d" % n for n in range(50)})
    clock_moves(project.parent)
    scan(cache, project)
    (project / "f7.py").write_bytes(b"edited")
    found, counters = scan(cache, project)
    assert counters.snapshot()["files_read"] == 1 and not found.unchanged


STEPS: dict[str, Callable[[Path], object]] = {
    "edit .gitignore": lambda p: (p / ".gitignore").write_bytes(b"b.py\n"),
    "edit .gitignore, same size": lambda p: (p / ".gitignore").write_bytes(b"*.lol\n"),
    "remove .gitignore": lambda p: (p / ".gitignore").unlink(),
    "add .flyteignore": lambda p: (p / ".flyteignore").write_bytes(b"d/\n!x.log\n"),
    "add a nested .gitignore": lambda p: (p / "d/.gitignore").write_bytes(b"*\n"),
    ".gitignore becomes a directory": lambda p: [
        (p / ".gitignore").unlink(),
        (p / ".gitignore").mkdir(),
    ],
    "a directory becomes a file": lambda p: [
        shutil.rmtree(p / "d"),
        (p / "d").write_bytes(b"file"),
    ],
    "a file becomes a directory": lambda p: [
        (p / "a.py").unlink(),
        write_files(p / "a.py", {"x": b"x"}),
    ],
    "a file becomes a link": lambda p: [(p / "a.py").unlink(), (p / "a.py").symlink_to("b.py")],
    "a link becomes a file": lambda p: [(p / "l").unlink(), (p / "l").write_bytes(b"file")],
    "a link becomes a directory": lambda p: [(p / "l").unlink(), write_files(p / "l", {"x": b"x"})],
    "a link is turned": lambda p: [(p / "l").unlink(), (p / "l").symlink_to("b.py")],
    "a directory becomes a link": lambda p: [shutil.rmtree(p / "d"), (p / "d").symlink_to("e")],
    "a directory becomes a virtual environment": lambda p: (p / "d/pyvenv.cfg").write_bytes(b""),
    "an ignored file becomes a directory": lambda p: [
        (p / "x.log").unlink(),
        write_files(p / "x.log", {"y": b""}),
        (p / "a.py").unlink(),
    ],
    "a directory is renamed": lambda p: (p / "d").rename(p / "f"),
    "two files are swapped": lambda p: [
        (p / "a.py").rename(p / "t"),
        (p / "b.py").rename(p / "a.py"),
        (p / "t").rename(p / "b.py"),
    ],
    "all is removed": lambda p: [shutil.rmtree(p), p.mkdir()],
    "chmod": lambda p: (p / "a.py").chmod(0o755),
}


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "fresh"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_warm_scan_finds_what_a_cold_one_finds(
    cache: Cache, project: Path, step: Callable[[Path], object], settled: bool
) -> None:
    """A warm scan agrees with a cold one after any change, and after that change is undone."""
    files: Files = {
        ".gitignore": b"*.log\n",
        "a.py": b"a",
        "b.py": b"b",
        "x.log": b"",
        "d/c.py": b"c",
        "d/x.log": b"",
        "e/g.py": b"g",
        "l": Link(b"a.py"),
    }
    write_files(project, files)
    before = tree_of(cache, project).digest
    if settled:
        clock_moves(project.parent)
        assert tree_of(cache, project).digest == before
    step(project)
    with opened(project.parent / "other") as other:
        changed = tree_of(other, project)
    assert tree_of(cache, project).digest == changed.digest != before
    shutil.rmtree(project)
    write_files(project, files)
    assert tree_of(cache, project).digest == before


def test_an_ignore_file_of_the_same_size_edited_at_once_is_seen(
    cache: Cache, project: Path
) -> None:
    """An edit of an ignore file is seen, even within one tick of the file system's clock."""
    write_files(project, {"a": b"", "b": b"", ".gitignore": b"?\n"})
    for n in range(60):
        with open(project / ".gitignore", "r+b") as file:
            file.write(b"ab"[n % 2 : n % 2 + 1])
        assert included(cache, project) == {".gitignore", "ba"[n % 2]}


@settings(max_examples=40)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "a",
                    "a/b",
                    "a/b/c",
                    "d",
                    "d/.gitignore",
                    ".gitignore",
                    "x.log",
                    "d/x.log",
                    "a/pyvenv.cfg",
                ]
            ),
            st.sampled_from(
                [
                    b"",
                    b"*.log\n",
                    b"!*.log\n",
                    b"d/\n",
                    b"a\n",
                    Executable(b"a\n"),
                    Link(b"d"),
                    Link(b".."),
                ]
            ),
            max_size=6,
        ),
        min_size=2,
        max_size=4,
    )
)
@example([{}, {".gitignore": Link(b"d"), "d": Link(b"d")}])
def test_any_sequence_of_states_is_seen(states: list[dict[str, bytes]]) -> None:
    """Warm scans of one state after the other find what cold ones find, errors included."""
    with temporary() as folder, opened(folder / "warm") as warm:
        for number, files in enumerate(states):
            root = folder / "p"
            if root.exists():
                shutil.rmtree(root)
            write_files(
                root,
                {
                    name: files[name]
                    for name in files
                    if not any(name.startswith(other + "/") for other in files)
                },
            )
            with opened(folder / f"cold{number}") as cold:
                assert attempt(warm, root) == attempt(cold, root)


def attempt(cache: Cache, root: Path) -> object:
    """Return the tree's digest, or the message of the error."""
    try:
        return tree_of(cache, root).digest
    except ScanError as error:
        return error.what


def test_the_last_digest_is_remembered_for_just_these_files(cache: Cache, project: Path) -> None:
    """The last digest is remembered for just these files, and for no others."""
    write_files(project, {"a.py": b"a"})
    clock_moves(project.parent)
    scanner = Scanner(str(project), cache.index, Counters())
    first = scanner.scan_all()
    assert scanner.remembered(first) is None
    digest = scanner.remember(tree_of(cache, project).digest, first)
    again = Scanner(str(project), cache.index, Counters())
    assert again.remembered(again.scan_all()) == digest
    (project / "a.py").write_bytes(b"b")
    assert again.remembered(again.scan_all()) is None


# --- Secrets

KEY = (
    b"-----BEGIN %bPRIVATE KEY-----\n"
    + b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj" * 4
    + b"\n-----END PRIVATE KEY-----\n"
)
SECRETS: dict[str, bytes] = {
    ".env": b"A=1",
    "deep/er/.env": b"A=1",
    "d/.env.production": b"A=1",
    "d/.envrc": b"A=1",
    "d/.netrc": b"",
    "d/_netrc": b"",
    ".pypirc": b"",
    "home/.aws/credentials": b"",
    "home/.aws/sso/cache/x.json": b"{}",
    "home/.docker/config.json": b"{}",
    "home/.kube/config": b"",
    "d/.ssh/id_ed25519": b"",
    "d/.git-credentials": b"",
    "d/store.p12": b"",
    "d/id_rsa": KEY % b"RSA ",
    "notes.txt": b"some text before\n" + KEY % b"",
    "cert/bundle.pem": (
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + KEY % b"EC "
    ),
    "openssh": KEY % b"OPENSSH ",
    "old": (
        (KEY % b"RSA ").replace(
            b"KEY-----\n", b"KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n", 1
        )
    ),
    "windows.pem": (KEY % b"").replace(b"\n", b"\r\n"),
    "code.py": b'KEY = """' + KEY % b"" + b'"""\n',
    "large.bin": bytes((1 << 20) - 40) + KEY % b"" + bytes(100),
    "account.json": (
        json.dumps(
            {"type": "service_account", "private_key_id": "x", "private_key": (KEY % b"").decode()}
        ).encode()
    ),
    "account2.json": json.dumps({"type": "service_account", "private_key": "..."}).encode(),
    ".npmrc": b"//registry.npmjs.org/:_authToken=npm_abcdefghijkl\n",
    "d/pip.conf": b"[global]\nindex-url = https://me:secret@pypi.example.com/simple\n",
}
HARMLESS: dict[str, bytes] = {
    "ca.pem": b"-----BEGIN CERTIFICATE-----\n" + b"MIIB" * 400 + b"\n-----END CERTIFICATE-----\n",
    "public.pem": b"-----BEGIN PUBLIC KEY-----\n" + b"MIIB" * 40 + b"\n-----END PUBLIC KEY-----\n",
    "check.py": (
        b'if b"-----BEGIN PRIVATE KEY-----" in data or "BEGIN RSA PRIVATE KEY" in text: raise'
        b" ValueError\n"
    ),
    "doc.md": (
        b"Put `-----BEGIN PRIVATE KEY-----` first, then your key, then `-----END PRIVATE"
        b" KEY-----`.\n"
    ),
    "env.py": b"A = 1\n",
    "environment": b"",
    "my.env": b"A=1",
    "client.json": b'{"type": "web", "private": 1}',
    "schema.json": b'{"type": "service_account"}',
    ".npmrc": b"registry=https://registry.npmjs.org\n//r/:_authToken=${NPM_TOKEN}\n",
    "pip.conf": b"[global]\nindex-url = https://pypi.org/simple\n",
    "aws/credentials.py": b"",
    "docker/config.json": b"{}",
}


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_is_refused_at_any_depth(cache: Cache, project: Path, path: str) -> None:
    """A secret is refused at any depth, by each scan anew.

    The error says how to exclude or allow the file, and both ways work.
    """
    write_files(project, {"main.py": b"", path: SECRETS[path]})
    for _ in range(2):
        with pytest.raises(SecretRefused) as raised:
            scan(cache, project)
        assert (
            path in raised.value.what
            and f"`/{path}` to `.flyteignore`" in raised.value.hint
            and f'["{path}"]' in raised.value.hint
        )
    assert {entry.name for entry in tree_of(cache, project, allowed=frozenset({path})).entries} == {
        "main.py",
        path,
    }
    (project / ".flyteignore").write_text(f"/{path}\n")
    assert included(cache, project) == {"main.py", ".flyteignore"}


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_that_is_asked_for_by_name_is_refused_too(
    cache: Cache, project: Path, path: str
) -> None:
    """A secret is refused even if it is imported or included by name."""
    write_files(project, {path: SECRETS[path]})
    with pytest.raises(SecretRefused, match="allow_secrets"):
        Scanner(str(project), cache.index, Counters()).scan_files([path])


@pytest.mark.parametrize("path", HARMLESS)
def test_what_only_looks_like_a_secret_is_taken(cache: Cache, project: Path, path: str) -> None:
    """CA bundles, public keys, and code or documentation that mentions keys are included."""
    write_files(project, {path: HARMLESS[path]})
    assert included(cache, project) == {path}


def test_one_allowed_secret_allows_no_other(cache: Cache, project: Path) -> None:
    """Allowing one secret allows no other; the error names up to twenty of those refused."""
    write_files(project, {f"d{n}/.env": b"" for n in range(30)})
    with pytest.raises(SecretRefused) as raised:
        scan(cache, project, allowed=frozenset({"d0/.env"}))
    assert (
        "29 files" in raised.value.what
        and raised.value.what.count("/.env:") == 20
        and "d0/.env" not in str(raised.value)
    )


# --- What cannot be in a bundle


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../outside", "d/../../outside", "/", "..", "d/out"]
)
def test_a_link_out_of_the_root_is_refused(cache: Cache, project: Path, target: str) -> None:
    """The error about a link out of the root names link and target, and what to do."""
    write_files(project, {"d/a": b"", "link": Link(target.encode())})
    (project / "d/out").symlink_to("../..")
    with pytest.raises(ScanError, match="points outside of the project") as raised:
        scan(cache, project)
    assert ".flyteignore" in raised.value.hint
    (project / ".flyteignore").write_text("link\nd/out\n")
    assert included(cache, project) == {".flyteignore", "d/a"}


@pytest.mark.parametrize(
    "target, kept",
    [
        ("a.py", "a.py"),
        ("d/b.py", "d/b.py"),
        ("./a.py", "./a.py"),
        ("d/../a.py", "d/../a.py"),
        ("nowhere", "nowhere"),
        ("d", "d"),
        (".", "."),
        ("{root}/a.py", "a.py"),
        ("{root}/d/b.py", "d/b.py"),
        ("{root}", "."),
        ("../project/a.py", "a.py"),
    ],
)
def test_a_link_inside_the_root_stays_a_link(
    cache: Cache, project: Path, target: str, kept: str
) -> None:
    """A link that is absolute, or leads out of the root and back, becomes relative.

    So a bundle is the same in every directory.
    """
    write_files(
        project, {"a.py": b"", "d/b.py": b"", "link": Link(target.format(root=project).encode())}
    )
    link = next(entry for entry in tree_of(cache, project).entries if entry.path == b"link")
    assert (link.kind, link.content) == ("l", kept.encode())


def test_a_relative_link_in_a_folder_stays_as_it_is(cache: Cache, project: Path) -> None:
    """A relative link in a directory is kept; an absolute one becomes relative to its place."""
    write_files(
        project,
        {
            "a.py": b"",
            "d/e/up": Link(b"../../a.py"),
            "d/e/absolute": Link(f"{project}/a.py".encode()),
            "d/loop": Link(b"loop"),
        },
    )
    assert {
        entry.path: entry.content for entry in tree_of(cache, project).entries if entry.kind == "l"
    } == {
        b"d/e/up": b"../../a.py",
        b"d/e/absolute": b"../../a.py",
        b"d/loop": b"loop",
    }


def test_a_socket_and_a_pipe_are_refused(cache: Cache, project: Path) -> None:
    """Sockets and pipes are refused by name, without waiting for a writer."""
    write_files(project, {"a.py": b""})
    os.mkfifo(project / "pipe")
    with pytest.raises(ScanError, match="pipe is neither a file"):
        scan(cache, project)
    os.unlink(project / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(project, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
    with pytest.raises(ScanError, match="sock is neither a file"):
        scan(cache, project)
    with pytest.raises(ScanError, match="sock is neither a file"):
        Scanner(str(project), cache.index, Counters()).scan_files(["sock"])
    (project / ".flyteignore").write_text("sock\n")
    assert included(cache, project) == {"a.py", ".flyteignore"}


@pytest.mark.parametrize(
    "budget",
    [Budget(files=50), Budget(bytes=100_000), Budget(seconds=0)],
    ids=["files", "bytes", "seconds"],
)
def test_more_than_the_budget_is_refused_with_the_largest_folders(
    cache: Cache, project: Path, budget: Budget
) -> None:
    """The error about an exceeded budget suggests lines for `.flyteignore`, largest first."""
    write_files(project, {f"data/big/f{n}": b"x" * 4_000 for n in range(60)})
    write_files(project, {"src/a.py": b"", "b.py": b""})
    with pytest.raises(BudgetExceeded, match="--root-dir") as raised:
        scan(cache, project, budget=budget)
    if not budget.seconds:
        return
    assert "/data/big/" in raised.value.hint
    line = next(line for line in raised.value.hint.splitlines() if "/data/big/" in line)
    (project / ".flyteignore").write_text(line.partition("#")[0].strip() + "\n")
    assert included(cache, project) == {"src/a.py", "b.py", ".flyteignore"}
    scan(cache, project, budget=budget)


def test_a_project_in_a_folder_whose_name_is_not_utf8_is_scanned(
    cache: Cache, tmp_path: Path
) -> None:
    """A project in a directory whose name is not UTF-8 is scanned, and known to the next scan."""
    root = tmp_path / "caf\udce9"
    write_files(root, {"a.py": b"a", "b\udcff": b"b"})
    clock_moves(tmp_path)
    assert included(cache, root) == {"a.py", "b\udcff"}
    assert scan(cache, root)[0].unchanged


def test_files_by_name_are_taken_with_the_links_that_lead_to_them(
    cache: Cache, project: Path
) -> None:
    """Files requested by name are included, with the links that lead to them.

    Ignore rules do not apply to them, and missing ones are left out.
    """
    files: Files = {
        ".gitignore": b"*\n",
        "real/m.py": b"m",
        "pkg": Link(b"real"),
        "n.py": b"n",
        "other.py": b"o",
    }
    write_files(project, files)
    found = Scanner(str(project), cache.index, Counters()).scan_files(
        ["pkg/m.py", "n.py", "gone.py"]
    )
    assert (
        {entry.name for entry in found.entries()} == {"pkg", "real/m.py", "n.py"}
        and found.holds("pkg")
        and not found.holds("other.py")
    )
    clock_moves(project.parent)
    Scanner(str(project), cache.index, counters := Counters()).scan_files(["pkg/m.py", "n.py"])
    again = Scanner(str(project), cache.index, counters := Counters()).scan_files(
        ["n.py", "pkg/m.py"]
    )
    assert counters.snapshot()["files_read"] == 0 and again.unchanged
    assert sorted(again.entries()) == sorted(
        entry
        for entry in entries_of(read_files(project))
        if entry.path in (b"pkg", b"real/m.py", b"n.py")
    )
