"""The smallest task: `flyte run examples/hello.py hello --name World`."""

import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
def hello(name: str = "World") -> str:
    """Greet somebody.

    Args:
        name: The name to greet.
    """
    return f"Hello, {name}!"


@env.task
async def hello_async(name: str = "World") -> str:
    """Greet somebody, as a coroutine."""
    return f"Hello, {name}!"
