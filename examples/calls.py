"""Tasks that call other tasks, synchronously and asynchronously.

flyte run examples/calls.py report --words '["tree", "pack", "key"]'
flyte run examples/calls.py total --words '["tree", "pack", "key"]'
"""

import asyncio

import flyte

env = flyte.TaskEnvironment(name="calls")


@env.task
def measure(word: str) -> int:
    """Return the length of a word."""
    return len(word)


@env.task
def report(words: list[str]) -> dict[str, int]:
    """Measure each word, one after the other."""
    return {word: measure(word) for word in words}


@env.task
async def measure_later(word: str) -> int:
    """Return the length of a word, as a coroutine."""
    await asyncio.sleep(0.01)
    return len(word)


@env.task
async def total(words: list[str]) -> int:
    """Measure all words concurrently, and return the total length."""
    return sum(await asyncio.gather(*(measure_later(word) for word in words)))
