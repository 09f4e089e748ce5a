"""The `flyte` command: parse, call, render. No logic of its own."""
