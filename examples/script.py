"""A file that runs its own task.

python examples/script.py
flyte run examples/script.py total --count 4
"""

import flyte

env = flyte.TaskEnvironment(name="script")


@env.task
def total(count: int = 10) -> int:
    """Add the numbers from 1 to `count`."""
    print(f"adding {count} numbers")
    return sum(range(1, count + 1))


if __name__ == "__main__":
    flyte.init_from_config()
    run = flyte.run(total, count=100)
    print(f"Result: {run}")
    print(f"Phase: {run.phase}")
    print(f"Details: {run.url}")
