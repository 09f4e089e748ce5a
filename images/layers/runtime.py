"""The runtime: this package, as a task needs it inside an image that does not contain it.

It is pure Python and needs no other package but cloudpickle. That lies beside it, where it hides no
other version of itself. The runtime is a directory to mount or to put on PYTHONPATH, or a layer of
a composed image.
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
from flyte_build.values.pickles import LIBRARIES

if TYPE_CHECKING:
    from flyte_build.cas.blobs import Batch
    from flyte_build.cas.layer import Compression, Layer

PLACE = "opt/flyte/runtime"  # In an image.
_LEFT_OUT = frozenset(("cli", "__pycache__"))  # Commands need libraries that images lack.


def files() -> Iterator[tuple[str, str]]:
    """Yield the runtime's files, sorted: path below the import directory, and local path."""
    import cloudpickle

    own = os.path.dirname(cloudpickle.__file__)
    yield from sorted(
        (
            *_below(PACKAGE, os.path.basename(PACKAGE)),
            *_below(own, f"{LIBRARIES}/{os.path.basename(own)}"),
        )
    )


def _below(folder: str, name: str) -> Iterator[tuple[str, str]]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            if entry.name not in _LEFT_OUT:
                yield from _below(entry.path, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", entry.path


def layer(batch: Batch, compression: Compression) -> Layer:
    """Write the runtime as a layer, and return it."""
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
    """Return the runtime's directory in the cache; it is written if it is missing.

    It contains only these packages, compiled for the minor version of the running Python, since
    nothing can be written into it where it is used.
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
                os.chmod(path, 0o755)  # Independent of the umask: a container's user reads it.
                for name in names:
                    with open(f"{path}/{name}", "rb") as file:
                        os.fchmod(file.fileno(), 0o644)
                        # A crash must not leave a truncated file below the final name.
                        os.fsync(file.fileno())
            try:
                os.rename(temporary, place)
            except OSError:  # Another process has written it first.
                shutil.rmtree(temporary)
    return place


def _state(name: str, path: str) -> Value:
    state = os.stat(path)
    return [name, state.st_size, state.st_mtime_ns]
