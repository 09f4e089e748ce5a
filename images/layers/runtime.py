"""The runtime: our own package as a task needs it inside an image that never heard of us. Pure
Python, with no other package.

It comes as a directory, to be mounted or put on PYTHONPATH, and as a layer, for images that are
composed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flyte_build._alias import PACKAGE
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, encode
from flyte_build.cas.folder import make_below
from flyte_build.cas.os_errors import storing

if TYPE_CHECKING:
    from flyte_build.cas.blobs import Batch
    from flyte_build.cas.layer import Compression, Layer

PLACE = "opt/flyte/runtime"  # In an image.
_LEFT_OUT = frozenset(("cli", "__pycache__"))  # Commands need libraries that an image has not.


def files() -> Iterator[tuple[str, str]]:
    """The runtime's files: each one's path below the directory that is imported from, and where it
    is on this machine; sorted.
    """
    yield from sorted(_below(PACKAGE, os.path.basename(PACKAGE)))


def _below(folder: str, name: str) -> Iterator[tuple[str, str]]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            if entry.name not in _LEFT_OUT:
                yield from _below(entry.path, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", entry.path


def layer(batch: Batch, compression: Compression) -> Layer:
    """The runtime as a layer."""
    from flyte_build.cas.layer import write_layer

    return write_layer(_blocks(), batch, compression)


def _blocks() -> Iterator[bytes]:
    from flyte_build.cas import tar

    for name, path in files():
        with open(path, "rb") as file:
            data = file.read()
        yield (
            tar.header(tar.Member(f"{PLACE}/{name}".encode(), len(data)))
            + data
            + tar.padding(len(data))
        )


def folder(cache: Cache) -> str:
    """The directory of the runtime in the cache, which is written if it is not there: it holds our
    package and nothing else.

    It comes compiled for Pythons of the minor version at hand: where it is used nothing can be
    written beside it.
    """
    found = list(files())
    states: list[Value] = [_state(name, path) for name, path in found]
    place = f"{cache.runtimes}/{Digest.of(encode(states)).hex}"
    if not os.path.isdir(place):
        import compileall
        import py_compile
        import shutil

        temporary = f"{cache.runtimes}/.{os.urandom(8).hex()}"
        with storing("write the runtime"):
            make_below(cache.runtimes)
            for name, path in found:
                os.makedirs(os.path.dirname(f"{temporary}/{name}"), exist_ok=True)
                shutil.copyfile(path, f"{temporary}/{name}")
            compileall.compile_dir(
                temporary, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
            for path, _, names in os.walk(temporary):
                os.chmod(path, 0o755)  # Whatever the umask: a container's user reads it.
                for name in names:
                    with open(f"{path}/{name}", "rb") as file:
                        os.fchmod(file.fileno(), 0o644)
                        # A machine that crashes must not leave half of it under its name.
                        os.fsync(file.fileno())
            try:
                os.rename(temporary, place)
            except OSError:  # Another process was first.
                shutil.rmtree(temporary)
    return place


def _state(name: str, path: str) -> Value:
    state = os.stat(path)
    return [name, state.st_size, state.st_mtime_ns]
