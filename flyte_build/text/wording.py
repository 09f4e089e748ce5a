"""Parts of sentences: long lists, untrusted strings, suggestions."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], most: int = 10) -> str:
    """Join names for a sentence: the first `most`, and the number of the others."""
    found = list(names)
    shown = ", ".join(found[:most])
    return f"{shown} and {len(found) - most:,} more" if len(found) > most else shown


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: `1 file`, `2,000 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Escape all unprintable characters of an untrusted string, including line breaks."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in text
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar to `name`; "" if none is similar."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), 1)), "")
