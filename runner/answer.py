"""Answers to conditions, from any process: a file for each in the run's directory.

<run>/answers/<action>   the value, as JSON; only the first answer counts
"""

from __future__ import annotations

import json
from typing import Any

from flyte_build.cas.atomic import create_file
from flyte_build.cas.folder import make_below
from flyte_build.values.type import Wires


def question(inputs: Wires, run: str, action: str, *, here: bool = False) -> str:
    """Return the text that asks for the answer to a condition, and says how it is given.

    `inputs` are those of the condition, and `here` tells whether the terminal takes it, too.
    """
    prompt = str(inputs["prompt"]).strip()
    return (
        f"The condition {inputs['name']!r} waits for a value of type {inputs['data_type']}:"
        + (f"\n{prompt}\n" if "\n" in prompt else f" {prompt} ")
        + f"{'Answer here, or with' if here else 'Answer with'}"
        f" `flyte signal condition {run} {action[:8]} VALUE`."
    )


def give(folder: str, action: str, value: Any) -> bool:
    """Answer the condition `action` of the run in `folder`; False if it was answered before."""
    make_below(f"{folder}/answers")
    return create_file(f"{folder}/answers/{action}", json.dumps(value).encode())


def given(folder: str, action: str) -> list[Any]:
    """Return the answer to a condition in a list, which is empty if there is none yet."""
    try:
        with open(f"{folder}/answers/{action}", encoding="utf-8") as file:
            return [json.load(file)]
    except FileNotFoundError:
        return []
