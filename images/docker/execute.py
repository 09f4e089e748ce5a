"""Execution of build steps in containers: commands, Debian packages, Dockerfiles.

The result is one layer on top of the image that the step ran in (or all layers of a Dockerfile's
image), exported from the engine. It differs at each execution, so it is pinned.
"""

from __future__ import annotations

import json
import os
import shlex
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from socket import gethostname
from typing import IO, TYPE_CHECKING, Any

from flyte_build.cas.blobs import Batch
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import Compression, Layer, write_archive
from flyte_build.cas.lease import Lease, is_held
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import EngineUnavailable, ImageBuildError
from flyte_build.images.layers.file_digests import ProjectFiles
from flyte_build.images.lock.uv import indexes
from flyte_build.images.oci_image import CONFIG, Added, OciImage
from flyte_build.images.recipe import Execute

from . import install
from .client import asking, connect, remove_orphans
from .context import Contexts, left_out
from .load import Fetch, load, pieces

if TYPE_CHECKING:
    from docker import APIClient

_CHUNK = 1 << 20
_LAST_WORDS = 20  # Lines of output in an error.
_LABEL = "flyte.build"
_APT = (
    "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"
    " {} && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt"
    " /var/log/dpkg.log /var/cache/ldconfig/aux-cache"
)

Output = Callable[[str], None]
"""Receiver of each line that a step prints."""


def describe(step: Execute) -> str:
    """Return a human-readable description of the step."""
    if step.install:
        sources = (source.packages or (f"-r {source.file}",) for source in step.install)
        return f"uv pip install {' '.join(word for words in sources for word in words)}"
    return f"apt-get install {' '.join(step.apt)}" if step.apt else "; ".join(step.commands)


def script(step: Execute, root: str) -> str:
    """Return the step as one shell script, to be run with `sh -e`.

    Paths below `root`, the project root on this machine, become paths in the container.
    """
    if step.install:
        return install.script(step.install, root)
    if step.apt:
        return _APT.format(shlex.join(step.apt))
    return "\n".join(step.commands)


class DockerExecutor:
    """Executor of build steps in the local Docker Engine, with the files of a project.

    `output` receives the lines that the steps print.
    """

    def __init__(
        self, files: ProjectFiles, cache: Cache, compression: Compression, output: Output
    ) -> None:
        self._root, self._contexts = files.root, Contexts(files)
        self._cache, self._compression, self._output = cache, compression, output
        self._blobs = cache.blobs

    def _reach(self, what: str) -> APIClient:
        """Return a client of the engine.

        Raises `EngineUnavailable`, which names the step `what`.
        """
        try:
            return connect()
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"Cannot execute a step of the image: {what}",
                why=f"{error.what}: {error.why}",
                hint="Start Docker, or use only packages and files, which do not need it.",
            ) from None

    def execute(
        self, base: OciImage, step: Execute, env: Mapping[str, str], workdir: str, fetch: Fetch
    ) -> OciImage:
        """Execute a step as root on top of an image, and return the resulting image.

        Raises `ImageBuildError` if the step fails.
        """
        client = self._reach(describe(step))
        remove_orphans(client, _LABEL, _is_built)
        on = load(client, base.manifest, self._blobs, fetch)
        certificates = ""
        if step.install:
            env = {**env, **indexes(os.environ)}
            if certificates := env.get("SSL_CERT_FILE", ""):
                # The step trusts the same certificates as this machine.
                env["SSL_CERT_FILE"] = install.CERTIFICATES
        with _container(
            client, on, script(step, self._root), env, workdir, self._cache.lease([])
        ) as container:
            if step.install:
                with (
                    install.given(
                        step.install, self._root, self._contexts, certificates
                    ) as archive,
                    asking("copy files into a container"),
                ):
                    client.put_archive(container, "/", archive)
            made = self._run(client, container, describe(step))
        try:
            _, layers = self._export(client, made, len(base.diff_ids))
        finally:
            client.remove_image(made, force=True)
        return base.change([Added.of(layer, self._compression, describe(step)) for layer in layers])

    def _run(self, client: APIClient, container: str, what: str) -> str:
        """Run a container to its end, and return the id of the image committed from it."""
        with asking("execute a build step"):
            client.start(container)
            lines: deque[str] = deque(maxlen=_LAST_WORDS)
            for line in _lines(client.logs(container, stream=True, follow=True)):
                lines.append(line)
                self._output(line)
            if code := client.wait(container)["StatusCode"]:
                raise ImageBuildError(f"{what} failed with exit code {code}", why="\n".join(lines))
            return str(client.commit(container)["Id"])

    def build(self, file: str, platform: str) -> OciImage:
        """Build a Dockerfile with its directory as the context, and return the image.

        Raises `ImageBuildError` if that fails.
        """
        dockerfile = f"{self._root}/{file}"
        client, folder = self._reach(f"the Dockerfile {file}"), os.path.dirname(dockerfile)
        from docker.utils.build import tar

        options = {"rm": True, "forcerm": True, "platform": platform, "decode": True}
        lines: deque[str] = deque(maxlen=_LAST_WORDS)
        made = ""
        with asking(f"build {dockerfile}"):
            context = tar(
                folder, exclude=left_out(folder), dockerfile=(os.path.basename(dockerfile), None)
            )
            answers = client.build(
                fileobj=context,
                custom_context=True,
                dockerfile=os.path.basename(dockerfile),
                **options,
            )
            for answer in answers:
                if "error" in answer:
                    raise ImageBuildError(
                        f"Cannot build {dockerfile}",
                        why="\n".join([*lines, answer["error"].strip()]),
                    )
                for line in str(answer.get("stream", "")).splitlines():
                    if line.strip():
                        lines.append(line)
                        self._output(line)
                made = answer.get("aux", {}).get("ID", made)
        config, layers = self._export(client, made, 0)
        kept = {name: config[name] for name in ("architecture", "os", "config") if name in config}
        rootfs = {"type": "layers", "diff_ids": []}
        data = json.dumps(
            {**kept, "rootfs": rootfs}, sort_keys=True, separators=(",", ":")
        ).encode()
        empty = OciImage(
            Manifest.of_layers(Descriptor(CONFIG, Digest.of(data), len(data)), []), data
        )
        return empty.change(
            [Added.of(layer, self._compression, f"of the Dockerfile {file}") for layer in layers]
        )

    def _export(
        self, client: APIClient, image: str, after: int
    ) -> tuple[dict[str, Any], tuple[Layer, ...]]:
        """Return an image's config, and its layers from index `after` on.

        The layers are then in the store.
        """
        with tempfile.TemporaryFile() as archive:
            for piece in client.get_image(image, chunk_size=_CHUNK):
                archive.write(piece)
            archive.seek(0)
            try:
                config, layers = self._members(archive, after)
                expected = config["rootfs"]["diff_ids"][after:]
            except (
                LookupError,
                TypeError,
                ValueError,
                AttributeError,
                RecursionError,
                tarfile.TarError,
            ) as error:
                why = f"Its format is not the expected one ({type(error).__name__}: {error})."
                raise EngineUnavailable(
                    f"Cannot read the image {image} that Docker exported", why=why
                ) from None
        if [layer.diff_id for layer in layers] != expected:
            raise EngineUnavailable(
                f"Cannot use the image {image} that Docker exported",
                why="Its layers are not the ones that its config lists.",
            )
        return config, layers

    def _members(self, archive: IO[bytes], after: int) -> tuple[dict[str, Any], tuple[Layer, ...]]:
        """Read an exported image.

        Raises the errors of `json` and `tarfile` if it is malformed.
        """
        # Nothing is unpacked: members are read, each by its name.
        with tarfile.open(fileobj=archive) as members:
            (manifest,) = json.load(_member(members, "manifest.json"))
            config: dict[str, Any] = json.load(_member(members, manifest["Config"]))
            with self._blobs.batch() as batch:
                return config, tuple(
                    self._layer(_member(members, name), batch)
                    for name in manifest["Layers"][after:]
                )

    def _layer(self, stream: IO[bytes], batch: Batch) -> Layer:
        return write_archive(pieces(stream), batch, self._compression)


@contextmanager
def _container(
    client: APIClient, image: str, script: str, env: Mapping[str, str], workdir: str, lease: Lease
) -> Iterator[str]:
    """Create a container, yield its id, and remove it.

    Its label names the lease, which is released at the end; while it is held, the container is not
    an orphan.
    """
    try:
        with asking("create a container for a build step"):
            container = client.create_container_from_config(
                {
                    "Image": image,
                    "Entrypoint": ["/bin/sh", "-e", "-c", script],
                    "Cmd": [],
                    "User": "0",
                    "Env": [f"{name}={text}" for name, text in env.items()],
                    **({"WorkingDir": workdir} if workdir else {}),
                    "Labels": {_LABEL: f"{gethostname()}:{lease.path}"},
                }
            )["Id"]
        try:
            yield container
        finally:
            with asking("remove the container of a build step"):
                client.remove_container(container, force=True)
    finally:
        lease.release()


def _is_built(labels: Mapping[str, str]) -> bool:
    """Whether the build of the container with these labels is alive, or on another machine."""
    host, _, lease = labels[_LABEL].partition(":")
    return host != gethostname() or is_held(lease)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise EngineUnavailable(
            "Cannot read the image that Docker exported", why=f"It contains no {name}."
        )
    return found


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        yield from (line.rpartition(b"\r")[2].decode(errors="replace").rstrip() for line in whole)
    if held:
        yield held.decode(errors="replace")
