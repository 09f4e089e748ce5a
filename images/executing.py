"""Executing what an image's declaration asks for, in a container: commands, Debian packages, Dockerfiles.

What comes of it is one layer on top of the image that it ran in (or a Dockerfile's whole image), exported from the engine.
It differs each time, which is why it is pinned.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from flyte_build.cas.blobs import Batch, Blobs
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, encode
from flyte_build.cas.layer import Compression, Layer, write_archive
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import EngineUnavailable, ImageBuildError, UsageError

from .config import CONFIG, Added, Image
from .docker import asking, connect
from .files import Secrets, Watch
from .loading import Fetch, load, pieces
from .recipe import Execute, Source
from .uv import find_uv, indexes

if TYPE_CHECKING:
    from docker import APIClient

_CHUNK = 1 << 20
_LAST_WORDS = 20  # Lines of output that an error shows.
_LABEL = "flyte.build"
_CERTIFICATES = "/opt/flyte/certificates.pem"
_UV = "/opt/flyte/uv"  # Where uv is, in a container that installs packages.
_APT = (
    "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {}"
    " && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache"
)

Binds = Sequence[tuple[str, str]]
"""Files and folders of this machine, and where they are in a container, read-only."""
Said = Callable[[str], None]
"""Is told each line that is printed meanwhile."""


def describe(step: Execute) -> str:
    """The step, for people."""
    if step.install:
        return f"uv pip install {' '.join(word for source in step.install for word in (source.packages or (f'-r {source.file}',)))}"
    return f"apt-get install {' '.join(step.apt)}" if step.apt else "; ".join(step.commands)


def script(step: Execute, root: str) -> str:
    """The step as one shell script, which ends at the first command that fails; `root` is the project's, which is there too."""
    if step.install:
        return "\n".join([f"cd {shlex.quote(root)}", *map(_install, step.install)])
    if step.apt:
        return _APT.format(shlex.join(step.apt))
    return "\n".join(step.commands)


def _install(source: Source) -> str:
    words = [_UV, "pip", "install", "--system", "--break-system-packages", "--no-cache", "--link-mode", "copy"]
    options = source.options
    words += ["--default-index", options["index_url"]] if "index_url" in options else []
    words += [word for url in options.get("extra_index_urls", ()) for word in ("--index", url)]
    words += ["--prerelease", "allow"] if options.get("pre") else []
    words += options.get("extra_args", ())
    if source.kind == "uv_project":
        export = [_UV, "export", "--frozen", "--no-emit-workspace", "--no-header", "--project", os.path.dirname(source.file) or "."]
        return f"{shlex.join(export)} | {shlex.join([*words, '-r', '-'])}"
    return shlex.join([*words, *source.packages, *(("-r", source.file) if source.file else ())])


class Executor:
    """Executes in this machine's Docker Engine. `root` is the project's; `said` is told what is printed."""

    def __init__(self, root: str, blobs: Blobs, compression: Compression, said: Said) -> None:
        self._root, self._blobs, self._compression, self._said = root, blobs, compression, said

    def _reach(self, what: str) -> "APIClient":
        """The engine, for what is to be executed. Raises `EngineUnavailable`, which names it."""
        try:
            return connect()
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"The image needs something to be executed: {what}",
                why=f"{error.what}: {error.why}",
                hint="Start Docker, or use packages and files alone, which need none.",
            ) from None

    def execute(self, base: Image, step: Execute, env: Mapping[str, str], workdir: str, fetch: Fetch) -> Image:
        """The image that a step makes of another, as root. Raises `ImageBuildError` if it fails."""
        client = self._reach(describe(step))
        on = load(client, base.manifest, self._blobs, fetch)
        binds = []
        if step.install:
            configured = indexes(os.environ)
            binds = [(self._root, self._root), (find_uv(), _UV)]
            if bundle := configured.get("SSL_CERT_FILE"):
                binds.append((os.path.realpath(bundle), _CERTIFICATES))  # Whom this machine trusts, the step trusts.
                configured["SSL_CERT_FILE"] = _CERTIFICATES
            env = {**env, **configured}
        made = self._run(client, on, describe(step), script(step, self._root), env, workdir, binds)
        try:
            _, layers = self._export(client, made, len(base.diff_ids))
        finally:
            client.remove_image(made, force=True)
        return base.change([Added.of(layer, self._compression, describe(step)) for layer in layers])

    def _run(self, client: "APIClient", image: str, what: str, script: str, env: Mapping[str, str], workdir: str, binds: Binds) -> str:
        """Run a shell script in an image that the engine has; the id of what it makes of it is given."""
        with _container(client, image, script, env, workdir, binds) as container, asking("execute a build step"):
            client.start(container)
            lines: deque[str] = deque(maxlen=_LAST_WORDS)
            for line in _lines(client.logs(container, stream=True, follow=True)):
                lines.append(line)
                self._said(line)
            if code := client.wait(container)["StatusCode"]:
                raise ImageBuildError(f"{what} failed with exit code {code}", why="\n".join(lines))
            return str(client.commit(container)["Id"])

    def build(self, file: str, platform: str) -> Image:
        """The image that a Dockerfile makes, with its folder as the context."""
        dockerfile = f"{self._root}/{file}"
        client, folder = self._reach(f"the Dockerfile {file}"), os.path.dirname(dockerfile)
        from docker.utils.build import tar

        options = {"rm": True, "forcerm": True, "platform": platform, "decode": True}
        lines: deque[str] = deque(maxlen=_LAST_WORDS)
        made = ""
        with asking(f"build {dockerfile}"):
            context = tar(folder, exclude=_left_out(folder), dockerfile=(os.path.basename(dockerfile), None))
            answers = client.build(fileobj=context, custom_context=True, dockerfile=os.path.basename(dockerfile), **options)
            for answer in answers:
                if "error" in answer:
                    raise ImageBuildError(f"{dockerfile} could not be built", why="\n".join([*lines, answer["error"].strip()]))
                for line in str(answer.get("stream", "")).splitlines():
                    if line.strip():
                        lines.append(line)
                        self._said(line)
                made = answer.get("aux", {}).get("ID", made)
        config, layers = self._export(client, made, 0)
        kept = {name: config[name] for name in ("architecture", "os", "config") if name in config}
        rootfs = {"type": "layers", "diff_ids": []}
        data = json.dumps({**kept, "rootfs": rootfs}, sort_keys=True, separators=(",", ":")).encode()
        empty = Image(Manifest.of_layers(Descriptor(CONFIG, Digest.of(data), len(data)), []), data)
        return empty.change([Added.of(layer, self._compression, f"of {file}") for layer in layers])

    def _export(self, client: "APIClient", image: str, after: int) -> tuple[dict[str, Any], tuple[Layer, ...]]:
        """An image's config, and its layers after the first so many, which are among the blobs then."""
        with tempfile.TemporaryFile() as archive:
            for piece in client.get_image(image, chunk_size=_CHUNK):
                archive.write(piece)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as members:  # Nothing of it is unpacked: members are read, each by its name.
                (manifest,) = json.load(_member(members, "manifest.json"))
                config = json.load(_member(members, manifest["Config"]))
                with self._blobs.batch() as batch:
                    layers = tuple(self._layer(_member(members, name), batch) for name in manifest["Layers"][after:])
        if [layer.diff_id for layer in layers] != config["rootfs"]["diff_ids"][after:]:
            raise EngineUnavailable("Docker exported other layers than it says", why=f"They are of the image {image}.")
        return config, layers

    def _layer(self, stream: IO[bytes], batch: Batch) -> Layer:
        return write_archive(pieces(stream), batch, self._compression)


@contextmanager
def _container(client: "APIClient", image: str, script: str, env: Mapping[str, str], workdir: str, binds: Binds) -> Iterator[str]:
    with asking("make a container for a build step"):
        container = client.create_container_from_config(
            {
                "Image": image,
                "Entrypoint": ["/bin/sh", "-e", "-c", script],
                "Cmd": [],
                "User": "0",
                "Env": [f"{name}={text}" for name, text in env.items()],
                **({"WorkingDir": workdir} if workdir else {}),
                "Labels": {_LABEL: "1"},
                "HostConfig": {"Mounts": [{"Type": "bind", "Source": source, "Target": to, "ReadOnly": True} for source, to in binds]},
            }
        )["Id"]
    try:
        yield container
    finally:
        with asking("remove the container of a build step"):
            client.remove_container(container, force=True)


def _left_out(folder: str) -> list[str]:
    """Patterns of what is not in a context: what its .dockerignore says, and what running tasks writes."""
    patterns = ["flyte.lock", "**/__pycache__"]
    if os.path.exists(ignore := f"{folder}/.dockerignore"):
        with open(ignore, encoding="utf-8") as lines:
            patterns += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return patterns


def context_of(dockerfile: str, root: str, secrets: Secrets) -> Digest:
    """What a Dockerfile's context holds, as its .dockerignore leaves it, in one digest: paths, modes, contents, targets of links.

    Raises `UsageError` for one that is not below the project's root, and `SecretRefused`.
    """
    from docker.utils.build import exclude_paths

    folder = os.path.dirname(dockerfile)
    if not os.path.isfile(dockerfile):
        raise UsageError(f"There is no Dockerfile {dockerfile}", hint=f"It is relative to {root}.")
    if not f"{os.path.realpath(folder)}/".startswith(f"{os.path.realpath(root)}/"):
        raise UsageError(f"{dockerfile} leads out of the project", hint="Its folder is sent to Docker: use one below the project's root.")
    entries, refused = list[Value](), list[tuple[str, str]]()
    for name in sorted(exclude_paths(folder, _left_out(folder), dockerfile=os.path.basename(dockerfile))):
        path = os.path.join(folder, name)
        if os.path.islink(path):
            entries.append([name, os.readlink(path)])
        elif os.path.isfile(path):
            below = os.path.relpath(path, root)
            content, why = _read(path, secrets.watch(below))
            entries.append([name, bool(os.stat(path).st_mode & 0o100), content])
            if why := secrets.by_name(below) or why:
                refused.append((below, why))
    secrets.refuse(refused)
    return Digest.of(encode(entries))


def _read(path: str, watch: Watch) -> tuple[Digest, str]:
    """The digest of a file, and what kind of secret it holds, or ""."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in pieces(file):
            sha256.update(piece)
            watch.feed(piece)
    return Digest.from_hash(sha256), watch.found


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise EngineUnavailable("Docker exported an image that cannot be read", why=f"It has no {name}.")
    return found


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        yield from (line.rpartition(b"\r")[2].decode(errors="replace").rstrip() for line in whole)
    if held:
        yield held.decode(errors="replace")
