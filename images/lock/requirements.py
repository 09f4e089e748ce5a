"""Requirements of a recipe: its sources, their files and the resolver's options, as one request.

Of a file, only the part about packages counts: all bytes of a requirements file and of a uv.lock,
the dependencies in a pyproject.toml, the inline metadata of a script. Other edits do not invalidate
pins.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.errors import DeclarationError
from flyte_build.images.recipe import Source

from .pins import Wanted

# A block of metadata: PyPA specifications, "Inline script metadata", reference implementation.
_METADATA = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_MAY_INCLUDE = re.compile(rb"(?m)^\s*(?:-r|-c|--requirement|--constraint)")
# pip, "Requirements File Format", "Using environment variables".
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_OF_FILES = frozenset(
    (
        "-c",
        "--constraint",
        "--constraints",
        "--override",
        "--overrides",
        "--exclude",
        "--build-constraint",
    )
)
# Names in the table `project` that matter to the resolver.
_RESOLVING = ("dependencies", "optional-dependencies", "requires-python", "dynamic")


class RequirementsReader:
    """Reader of the files that sources name.

    `read` maps each file read so far, by path below the project root, to its digest.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.read: dict[str, Digest] = {}

    def wanted(self, sources: Sequence[Source], python: str, platform: str) -> Wanted:
        """Return the request that the sources make.

        Raises `DeclarationError` for a missing or malformed file.
        """
        requirements: set[str] = set()
        files: dict[str, Digest] = {}
        for source in sources:
            requirements.update(source.packages)
            if not source.file:
                continue
            path = self._relative(source.file)
            match source.kind:
                case "requirements":
                    requirements.add(f"-r {path}")
                    self._follow(path, files)
                case "pyproject":
                    requirements.add(f"-r {path}")
                    files[path] = self._project(path)
                case "uv_script":
                    requirements.add(f"-r {path}")
                    files[path] = _digest(self.script(source.file))
                case "uv_project":
                    lock = self._relative(source.lock)
                    requirements.add(" ".join(["--project", path, *arguments(source)]))
                    files.update({path: self._project(path), lock: Digest.of(self._bytes(lock))})
        asked = [source for source in sources if source.kind != "uv_project"]
        for file in (file for source in asked for file in _files_of(arguments(source))):
            self._follow(self._relative(file), files)
        options = merged(asked)
        return Wanted(
            requirements=tuple(sorted(requirements)),
            files=files,
            options=options,
            python=python,
            platform=platform,
        )

    def script(self, file: str) -> Mapping[str, Any]:
        """Return the inline metadata of a script; raises `DeclarationError` if it has none."""
        import tomllib

        path = self._relative(file)
        text = self._bytes(path).decode("utf-8", "replace").replace("\r\n", "\n")
        blocks = [found.group("content") for found in _METADATA.finditer(text)]
        if len(blocks) != 1:
            raise DeclarationError(
                f"{path} has {'several blocks of' if blocks else 'no'} inline metadata",
                why="Its packages are read from one comment that begins with `# /// script`.",
                hint="Run `uv add --script` to write one.",
            )
        lines = blocks[0].splitlines()
        try:
            return tomllib.loads(
                "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
            )
        except ValueError as error:
            raise DeclarationError(
                f"The inline metadata of {path} is not well-formed", why=str(error)
            ) from None

    def _project(self, path: str) -> Digest:
        import tomllib

        try:
            document = tomllib.loads(self._bytes(path).decode())
        except ValueError as error:
            raise DeclarationError(f"{path} is not well-formed", why=str(error)) from None
        project = {name: document.get("project", {}).get(name) for name in _RESOLVING}
        return _digest(
            {
                "project": project,
                "groups": document.get("dependency-groups"),
                "uv": document.get("tool", {}).get("uv"),
            }
        )

    def _follow(self, path: str, files: dict[str, Digest]) -> None:
        """Add the digests of a requirements file and of the files that it includes."""
        if path in files:
            return
        data = self._bytes(path)
        files[path] = Digest.of(data)
        whole = os.path.join(self._root, path)
        for name in _included(whole) if _MAY_INCLUDE.search(data) else ():
            self._follow(self._relative(os.path.join(os.path.dirname(path), name)), files)

    def _relative(self, path: str) -> str:
        if os.path.isabs(path):
            return os.path.relpath(os.path.realpath(path), self._root)
        return os.path.normpath(path)

    def _bytes(self, path: str) -> bytes:
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                data = file.read()
        except OSError as error:
            raise DeclarationError(
                f"Cannot read {path}, which an image needs",
                why=f"{error.strerror}: {os.path.join(self._root, path)}",
                hint=(
                    "Give a path relative to the project root, or use Path(__file__).parent / ..."
                    " for a file beside the declaring one."
                ),
            ) from None
        self.read[path] = Digest.of(data)
        return data


def _included(file: str) -> Iterator[str]:
    """Yield the files that a requirements file includes by `-r` and `-c`, without URLs.

    Raises `DeclarationError` if it is not text.
    """
    from pip_requirements_parser import RequirementsFile

    try:
        lines = RequirementsFile.from_file(file).options
    except ValueError as error:
        raise DeclarationError(
            f"Cannot parse the requirements file {file}", why=str(error)
        ) from None
    for line in lines:
        for name in (*line.options.get("requirements", ()), *line.options.get("constraints", ())):
            if "://" not in name:
                yield _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), name)


def merged(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the options of all sources together, in declaration order, as `Wanted` has them.

    If all sources have the same `index_url`, it is the default index. If not, the given ones are
    extra indexes, which come before the default one.
    """
    indexes = list(dict.fromkeys(source.options.get("index_url", "") for source in sources))
    extra = [url for source in sources for url in source.options.get("extra_index_urls", ())]
    if len(indexes) > 1:
        extra = [*filter(None, indexes), *extra]
    options = {
        "index_url": indexes[0] if len(indexes) == 1 else "",
        "extra_index_urls": list(dict.fromkeys(extra)),
        "pre": any(source.options.get("pre") for source in sources),
        "extra_args": [word for words in dict.fromkeys(map(arguments, sources)) for word in words],
    }
    return {name: value for name, value in options.items() if value}


def arguments(source: Source) -> tuple[str, ...]:
    """Return the extra arguments of a source, split into words; raises `DeclarationError`."""
    try:
        return tuple(shlex.split(source.options.get("extra_args", "")))
    except ValueError as error:
        raise DeclarationError(
            f"Cannot parse extra_args={source.options['extra_args']!r}", why=str(error)
        ) from None


def _files_of(words: Sequence[str]) -> Iterator[str]:
    """Yield the files that arguments of the resolver name."""
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name in _OF_FILES:
            yield value if equals else after


def _digest(value: Any) -> Digest:
    return Digest.of(json.dumps(value, sort_keys=True, default=str).encode())
