"""Installation of Python packages in a container with uv, including ones that must be built.

Directories of the project can be installed, too. The container receives copies: no directory of
this machine is mounted, so that no trace of it, not even an empty mount point, is in the layer.
"""

from __future__ import annotations

import os
import re
import shlex
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO
from urllib.parse import unquote, urlsplit

from flyte_build.errors import FileUnstable
from flyte_build.images.lock.requirements import RequirementsReader, arguments
from flyte_build.images.lock.uv import find_uv
from flyte_build.images.recipe import Source

from .context import Contexts

GIVEN = "/.flyte-build"  # A directory at the top, so that removing it leaves no trace.
CERTIFICATES = f"{GIVEN}/certificates.pem"
_PROJECT, _UV = f"{GIVEN}/project", f"{GIVEN}/uv"
_CONFIGURING = ("uv.toml", "pyproject.toml")
_EDITABLE = re.compile(r"(?:-e|--editable)[ =]\s*")
_PACKED = (".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz")
_FOLDERS = re.compile(r"(?m)^\s*(?:-f|--find-links|-i|--index-url|--extra-index-url)\b")


def script(sources: Sequence[Source], root: str) -> str:
    """Return the lines of a shell script that installs all sources.

    Paths below `root`, the project root on this machine, become paths in the container.
    """
    installs = (_install(source, root) for source in sources)
    return "\n".join([f"cd {_PROJECT}", *installs, "cd /", f"rm -rf {GIVEN}"])


def local(sources: Sequence[Source], root: str) -> list[str]:
    """Return the project's files and directories to install, as paths below its root."""
    found = set[str]()
    for folder, text in _requirements(sources, root):
        path = _path(text)
        for start in (root, folder) if path else ():
            there = os.path.realpath(os.path.join(start, path))
            if os.path.exists(there) and f"{there}/".startswith(f"{os.path.realpath(root)}/"):
                found.add(os.path.relpath(there, os.path.realpath(root)))
                break
    return sorted(found)


def given(sources: Sequence[Source], root: str, contexts: Contexts, certificates: str) -> IO[bytes]:
    """Return an archive for the container: uv, certificates, and sources of the project.

    `certificates` is a path, or "". The archive is deleted when it is closed. Raises `FileUnstable`
    if a file cannot be read.
    """
    named = [*RequirementsReader(root).wanted(sources, "", "").files, *_CONFIGURING]
    names = (
        contexts.sources(named)
        if _may_need_all(sources, root)
        else [name for name in named if os.path.isfile(f"{root}/{name}")]
    )
    archive = tempfile.TemporaryFile()  # noqa: SIM115  # The caller closes it.
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo(_PROJECT.lstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        _add(tar, find_uv(), _UV)
        if certificates:
            _add(tar, os.path.realpath(certificates), CERTIFICATES)
        for name in dict.fromkeys(names):
            _add(tar, f"{root}/{name}", f"{_PROJECT}/{name}")
    archive.seek(0)
    return archive


def _install(source: Source, root: str) -> str:
    words = [
        _UV,
        "pip",
        "install",
        "--system",
        "--break-system-packages",
        "--no-cache",
        "--no-editable",
        "--link-mode",
        "copy",
    ]
    options = source.options
    words += ["--default-index", options["index_url"]] if "index_url" in options else []
    words += [word for url in options.get("extra_index_urls", ()) for word in ("--index", url)]
    words += ["--prerelease", "allow"] if options.get("pre") else []
    words += arguments(source)
    if source.kind == "uv_project":
        export = [
            _UV,
            "export",
            "--frozen",
            "--no-emit-workspace",
            "--no-header",
            "--project",
            os.path.dirname(source.file) or ".",
        ]
        return f"{shlex.join(export)} | {shlex.join([*words, '-r', '-'])}"
    words += [*source.packages, *(("-r", source.file) if source.file else ())]
    return shlex.join(_there(word, root) for word in words)


def _there(word: str, root: str) -> str:
    """Return a word in which paths below the project root are paths in the container."""
    return re.sub(rf"(^|[ =@]|file://){re.escape(root.rstrip('/'))}(?=/|$)", rf"\1{_PROJECT}", word)


def _requirements(sources: Sequence[Source], root: str) -> Iterator[tuple[str, str]]:
    """Yield each requirement with the directory that its paths may be relative to.

    Other words and lines of options and requirements files are yielded, too.
    """
    for source in sources:
        yield from ((root, text) for text in (*source.packages, *arguments(source)))
    files = (
        RequirementsReader(root)
        .wanted([source for source in sources if source.kind == "requirements"], "", "")
        .files
    )
    for name in files:
        with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
            yield from ((os.path.dirname(os.path.join(root, name)), line) for line in file)


def _path(requirement: str) -> str:
    """Return the path in a requirement, or "" if it is a name or a URL.

    See the PyPA specifications, "Dependency specifiers", and pip's "Requirement Specifiers".
    """
    text = _EDITABLE.sub(
        "", requirement.strip().partition(" #")[0].partition(" ;")[0], count=1
    ).strip()
    text = text.partition("@")[2].strip() if re.match(r"[\w.-]+(\[[^]]*\])?\s*@", text) else text
    if text.startswith("file:"):
        return unquote(urlsplit(text).path)
    if text.startswith(("-", "#", "git+", "hg+")) or "://" in text:
        return ""
    path = re.sub(r"\[[^]]*\]$", "", text)
    return path if "/" in path or path.startswith(".") or path.endswith(_PACKED) else ""


def _may_need_all(sources: Sequence[Source], root: str) -> bool:
    """Whether the installation may need project files other than the named ones.

    That is so for directories of packages or wheels, for projects, and for unknown arguments.
    """
    if any(
        source.kind not in ("packages", "requirements") or arguments(source) for source in sources
    ):
        return True
    return any(_path(text) or _FOLDERS.match(text) for _, text in _requirements(sources, root))


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    member = tar.gettarinfo(path, name.lstrip("/"))
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    try:
        if member.isreg():
            with open(path, "rb") as file:
                tar.addfile(member, file)
        else:
            tar.addfile(member)
    except OSError as error:
        hint = "Run the command again when nothing writes to the project."
        raise FileUnstable(f"Cannot read {path}", why=str(error), hint=hint) from None
