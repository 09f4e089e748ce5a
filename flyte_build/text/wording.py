"""Pieces of sentences: long lists, and what others wrote."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names for a sentence: the first few, and how many more there are."""
    found = list(names)
    shown = ", ".join(found[:most])
    return f"{shown} and {len(found) - most:,} more" if len(found) > most else shown


def printable(text: str) -> str:
    """A text that others wrote as a terminal can show it: what is no character to be seen, a line's
    end too, is escaped.
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in text
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` was probably meant to be; "" if none is near."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), 1)), "")
