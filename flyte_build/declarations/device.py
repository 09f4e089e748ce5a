"""Accelerators of a task: `GPU("A100", 2)`, `TPU("V5E", "2x2")` and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flyte_build.errors import DeclarationError

from .serialize import Documented

DeviceClass = Literal["GPU", "TPU", "NEURON", "AMD_GPU", "HABANA_GAUDI", "APPLE_SILICON"]

_SHARED = ("T4 shared", "L4 shared", "A10G shared", "A10 shared", "L40S shared")
_DEVICES: dict[DeviceClass, tuple[str, ...]] = {
    "GPU": (
        *("A2", "A10", "A10G", "A100", "A100_80G", "B200", "H100", "H200", "L4", "L40s", "T4"),
        *("V100", "RTX_PRO_4500", "RTX_PRO_6000", "GB10", *_SHARED),
    ),
    "TPU": ("V5E", "V5P", "V6E"),
    "NEURON": ("Inf1", "Inf2", "Trn1", "Trn1n", "Trn2", "Trn2u"),
    "AMD_GPU": (
        *("MI100", "MI210", "MI250", "MI250X", "MI300A", "MI300X", "MI325X", "MI350X", "MI355X"),
    ),
    "HABANA_GAUDI": ("Gaudi1",),
    "APPLE_SILICON": ("AppleSilicon",),
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
# Devices that are not listed are not checked.
_PARTITIONS = {
    "A100": ("1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"),
    "A100_80G": ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
    "H100": ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
    "H200": ("1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
    "RTX_PRO_6000": ("1g.24gb", "2g.48gb", "4g.96gb"),
    "V5E": _FLAT,
    "V5P": (
        *("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
        *("16x16x16", "16x16x24"),
    ),
    "V6E": _FLAT,
}


@dataclass(frozen=True)
class Device(Documented):
    """A number of accelerators of a class, of one type and partition if these are given."""

    quantity: int
    device_class: DeviceClass
    device: str | None = None
    partition: str | None = None

    def __post_init__(self) -> None:
        if self.quantity < 1:
            raise DeclarationError(
                f"{self.device_class}: the quantity must be 1 or more, not {self.quantity}"
            )

    @classmethod
    def parse(cls, text: str) -> Device:
        """Return the device of a string like `A100:4`. Raises `DeclarationError`."""
        name, _, number = text.partition(":")
        name = name.replace("A100 80G", "A100_80G")  # As earlier versions of Flyte 2 wrote it.
        number = number or ("1" if name == "AppleSilicon" else "")
        known = {
            device: device_class
            for device_class, devices in _DEVICES.items()
            for device in devices
            if device_class != "TPU"
        }
        if name in known and number.isdecimal():
            return cls(int(number), known[name], name)
        raise DeclarationError(
            f"Resources: gpu must be a number or TYPE:NUMBER, not {text!r}",
            why=f"Known types: {', '.join(known)}.",
            hint='Write a number, or "A100:4".',
        )

    def document(self) -> str:
        """Return the device as `TYPE:NUMBER`, or `TYPE/PARTITION:NUMBER`."""
        name = self.device or self.device_class
        partition = f"/{self.partition}" if self.partition else ""
        return f"{name}{partition}:{self.quantity}"


def GPU(device: str, quantity: int, partition: str | None = None) -> Device:
    """Return a number of NVIDIA GPUs. Raises `DeclarationError`."""
    return _device("GPU", device, quantity, partition)


def TPU(device: str, partition: str | None = None) -> Device:
    """Return a slice of a Google TPU. Raises `DeclarationError`."""
    return _device("TPU", device, 1, partition)


def Neuron(device: str) -> Device:
    """Return an AWS Inferentia or Trainium device. Raises `DeclarationError`."""
    return _device("NEURON", device)


def AMD_GPU(device: str) -> Device:
    """Return an AMD GPU. Raises `DeclarationError`."""
    return _device("AMD_GPU", device)


def HABANA_GAUDI(device: str) -> Device:
    """Return a Habana Gaudi device. Raises `DeclarationError`."""
    return _device("HABANA_GAUDI", device)


def APPLE_SILICON() -> Device:
    """Return an Apple GPU."""
    return _device("APPLE_SILICON", "AppleSilicon")


def _device(
    device_class: DeviceClass, device: str, quantity: int = 1, partition: str | None = None
) -> Device:
    if device not in _DEVICES[device_class]:
        raise DeclarationError(
            f"Unknown {device_class} type: {device!r}",
            hint=f"Use one of: {', '.join(_DEVICES[device_class])}.",
        )
    partitions = _PARTITIONS.get(device)
    if partition is not None and partitions and partition not in partitions:
        raise DeclarationError(
            f"{device} has no partition {partition!r}",
            hint=f"Use one of: {', '.join(partitions)}.",
        )
    return Device(quantity, device_class, device, partition)
