"""A small pipeline: a map, a group, errors of children, a traced function, and a condition.

flyte run examples/pipeline.py main --count 4
flyte run --local examples/pipeline.py careful --numbers '[1, 0]'
flyte run examples/pipeline.py bill --items '["tea", "milk"]'
flyte run examples/pipeline.py approved
"""

import asyncio
from functools import partial

import flyte

env = flyte.TaskEnvironment(name="pipeline")


@env.task(retries=2)
async def divide(number: int, by: int) -> float:
    """Divide a number."""
    return number / by


@env.task
async def main(count: int = 4) -> float:
    """Divide many numbers, some of them in a group, and add the results."""
    halves = [half async for half in flyte.map.aio(partial(divide, by=2), range(count))]
    with flyte.group("thirds"):
        thirds = await asyncio.gather(*(divide(number, 3) for number in range(count)))
    return round(sum(halves) + sum(thirds), 3)


@env.task
async def careful(numbers: list[int]) -> list[str]:
    """Divide 6 by each number; what cannot be divided gives its error."""
    found = []
    for number in numbers:
        try:
            found.append(str(await divide.override(retries=0)(6, number)))
        except ZeroDivisionError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


@flyte.trace
async def price(item: str) -> float:
    """Ask a shop for a price; a retry or a recovered run does not ask again."""
    await asyncio.sleep(0.01)
    return 1.5 * len(item)


@env.task
async def bill(items: list[str]) -> float:
    """Add the prices of some items."""
    return sum([await price(item) for item in items])


@env.task
async def approved() -> str:
    """Wait until somebody approves: `flyte signal condition RUN approve yes`."""
    condition = flyte.new_condition("approve", prompt="Publish the report?", timeout=3600)
    return "published" if await condition.wait.aio() else "withdrawn"
