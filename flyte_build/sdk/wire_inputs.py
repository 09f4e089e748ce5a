"""Inputs of deployed tasks: JSON values, or objects of the caller's classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyte_build.declarations.interface import Interface, Parameter
from flyte_build.errors import InputError
from flyte_build.values.type import Mismatch, Wires


def wire_inputs(interface: Interface, inputs: Mapping[str, Any]) -> Wires:
    """Return the wire values of inputs, which are JSON values or objects that can be converted.

    Raises `InputError`.
    """
    interface.refuse_unknown(inputs)
    return interface.complete(inputs, _wire, Parameter.argument)


def _wire(parameter: Parameter, value: Any) -> Any:
    """Return the wire value of a JSON value, or of an object of a class that can be converted.

    Raises `InputError`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return parameter.check(value, parameter.argument)
    try:
        return parameter.check(value, parameter.argument)
    except InputError:
        from flyte_build.values.annotations import type_of

        try:
            return parameter.check(type_of(type(value)).dump(value), parameter.argument)
        except Mismatch:
            pass
        raise
