"""What exceptions that are not ours say of themselves."""

from __future__ import annotations

_LONGEST = 4_000  # Characters that are kept of a message, and of a part of a traceback.


def message_of(error: BaseException) -> str:
    """The text of an exception, cut if it is very long; one that has none because its own code
    fails does no harm.
    """
    try:
        return cut(str(error))
    except (Exception, SystemExit) as another:  # Whatever a `__str__` does.
        return f"its text cannot be had: {type(another).__name__}"


def cut(text: str) -> str:
    """The text, or its beginning and its length."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"
