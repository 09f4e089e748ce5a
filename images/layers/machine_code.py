"""Compatibility of a wheel with an image's Python and platform: its tags and its machine code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from flyte_build.errors import ImageBuildError
from flyte_build.images.lock.pins import Wheel

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_ELF = {62: "x86_64", 183: "aarch64"}  # elf.h: EM_X86_64, EM_AARCH64.
_PROGRAMS = (2, 3)  # elf.h: ET_EXEC, ET_DYN.
# And ppc64, s390, arm, riscv, loongarch. Other machines mean data, such as code for a GPU.
_PROCESSORS = frozenset((*_ELF, 21, 22, 40, 243, 258))
HEAD = 20
"""Number of bytes at the start of a file that identify its machine."""
_LIBRARY = re.compile(r"\.so(?:\.[0-9]+)*\Z")
_CPYTHON = re.compile(r"cp3([0-9]+)\Z")


def check_tags(wheel: Wheel, python: str, platform: str) -> None:
    """Raise `ImageBuildError` if the tags of a wheel exclude a Python or a platform."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        tags = parse_wheel_filename(wheel.filename)[3]
    except InvalidWheelFilename:
        raise ImageBuildError(
            f"{wheel.filename} is not the file name of a wheel",
            hint="Lock the packages again with `flyte lock --upgrade`.",
        ) from None
    if not any(
        _fits(tag.interpreter, tag.abi, tag.platform, python, _MACHINES[platform]) for tag in tags
    ):
        raise ImageBuildError(
            f"The wheel {wheel.filename} is not for Python {python} on {platform}",
            why="The tags in its file name exclude it.",
            hint="Lock the packages for this platform with `flyte lock`.",
        )


def _fits(interpreter: str, abi: str, platform: str, python: str, machine: str) -> bool:
    minor = int(python.partition(".")[2])
    if platform != "any" and not (
        platform.startswith(("manylinux", "linux_")) and platform.endswith(f"_{machine}")
    ):
        return False
    if interpreter in ("py3", "py2.py3") or (
        interpreter.startswith("py3")
        and interpreter[3:].isdigit()
        and int(interpreter[3:]) <= minor
    ):
        return abi == "none"
    found = _CPYTHON.match(interpreter)
    if not found:
        return False
    if abi == "abi3":
        return int(found[1]) <= minor
    return int(found[1]) == minor and abi in ("none", interpreter)


def check_binaries(wheel: Wheel, files: Mapping[str, Callable[[], bytes]], platform: str) -> None:
    """Raise `ImageBuildError` if shared libraries or programs are for another machine.

    `files` maps names to functions that return the first `HEAD` bytes. A wheel for any platform may
    contain code for several machines, if this one is among them.
    """
    machine = _MACHINES[platform]
    found = {
        name: its
        for name, head in files.items()
        if (its := _machine(head(), bool(_LIBRARY.search(name))))
    }
    foreign = sorted(name for name, its in found.items() if its != machine)
    if foreign and not (wheel.filename.endswith("-any.whl") and machine in found.values()):
        raise ImageBuildError(
            f"Cannot use the wheel {wheel.filename}",
            why=(
                f"Its file {foreign[0]} is machine code for {found[foreign[0]]}, but the image is"
                f" for {machine}."
            ),
            hint="Lock the packages for this platform with `flyte lock`.",
        )


def _machine(head: bytes, is_library: bool) -> str:
    """Return the machine of an ELF file, or "" for a file without code for a processor.

    See the System V ABI, "ELF Header": e_type, e_machine.
    """
    if head[:4] != b"\x7fELF":
        return "another system" if is_library else ""
    order: Literal["little", "big"] = "little" if head[5:6] == b"\1" else "big"
    kind, number = int.from_bytes(head[16:18], order), int.from_bytes(head[18:20], order)
    if not is_library and (kind not in _PROGRAMS or number not in _PROCESSORS):
        return ""
    return _ELF.get(number, f"machine {number}")


def refused(wheel: Wheel, why: str) -> ImageBuildError:
    """Return the error for a wheel that is malformed or not what it claims to be."""
    return ImageBuildError(
        f"Cannot use the wheel {wheel.filename}",
        why=why,
        hint="Do not trust its source: get the package from another one.",
    )
