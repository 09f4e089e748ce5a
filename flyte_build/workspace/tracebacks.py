"""Messages of arbitrary exceptions."""

from __future__ import annotations

_LONGEST = 4_000  # Maximum characters of a message, and of a part of a traceback.


def message_of(error: BaseException) -> str:
    """Return the message of an exception, cut if it is very long.

    An exception whose `__str__` fails does no harm.
    """
    try:
        return cut(str(error))
    except (Exception, SystemExit) as another:  # A `__str__` may do anything.
        return f"<exception str() failed: {type(another).__name__}>"


def cut(text: str) -> str:
    """Return a string, cut to its beginning and its length if it is very long."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"
