"""Human-readable times, durations and sizes: parsing and formatting."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_ISO = re.compile(
    r"([+-])?P(?:(?P<weeks>\d+(?:[.,]\d+)?)W)?(?:(?P<days>\d+(?:[.,]\d+)?)D)?"
    r"(?:T(?:(?P<hours>\d+(?:[.,]\d+)?)H)?(?:(?P<minutes>\d+(?:[.,]\d+)?)M)?(?:(?P<seconds>\d+"
    r"(?:[.,]\d+)?)S)?)?\Z",
    re.I,
)
_CLOCK = re.compile(r"([+-])?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d\d(?:\.\d+)?)\Z")
_WORDS = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([a-zµ]+)\s*,?")
_UNITS = {
    unit: name
    for name, units in {
        "weeks": "w week weeks",
        "days": "d day days",
        "hours": "h hr hrs hour hours",
        "minutes": "m min mins minute minutes",
        "seconds": "s sec secs second seconds",
        "milliseconds": "ms millisecond milliseconds",
        "microseconds": "us µs microsecond microseconds",
    }.items()
    for unit in units.split()
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?))?b?\Z", re.I)
_RELATIVE = re.compile(r"(now|today)\s*(?:([+-])\s*(.+))?\Z", re.I)


def parse_timedelta(text: str) -> timedelta:
    """Parse a duration: ISO 8601, `1:24` (minutes), `1:02:03`, `90s`, `2 days 3h`, or seconds.

    ISO 8601 may have weeks, days and fractions (`PT1H30M`). Raises `ValueError`, also for years and
    months, whose length depends on the date.
    """
    text = text.strip()
    match = _ISO.match(text) if text[-1:].upper() not in ("P", "T") else None
    if match := match or _CLOCK.match(text):
        amounts = {
            name: float(amount.replace(",", "."))
            for name, amount in match.groupdict().items()
            if amount
        }
        return timedelta(**amounts) * (-1 if match[1] == "-" else 1)
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        pass
    total, at = timedelta(0), 0
    while at < len(text):
        word = _WORDS.match(text, at)
        if not word or word[2].lower() not in _UNITS:
            raise ValueError(text)
        total += timedelta(**{_UNITS[word[2].lower()]: float(word[1])})
        at = word.end()
    if not at:
        raise ValueError(text)
    return total


def parse_datetime(text: str) -> datetime:
    """Parse a time: ISO 8601, `now`, `today`, or one of these with an offset, as in `now - P1D`.

    A date alone is its midnight, and a time without a zone stays naive; `now` has the local time
    zone, and `today` is the local midnight. Raises `ValueError`.
    """
    match = _RELATIVE.match(text.strip())
    if match is None:
        return datetime.fromisoformat(text.strip())
    moment = datetime.now().astimezone()
    if match[1].lower() == "today":
        moment = datetime(moment.year, moment.month, moment.day).astimezone()
    if match[2]:
        distance = parse_timedelta(match[3])
        moment += distance if match[2] == "+" else -distance
    return moment


def parse_size(text: str) -> int:
    """Parse a size in bytes: `20 GB` or `20G` (1000**3), `4 GiB` or `4Gi` (1024**3), or `512`.

    Raises `ValueError`.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise ValueError(text)
    power = " kmgtp".index(match[2].lower()) if match[2] else 0
    unit: int = (1024 if match[3] else 1000) ** power
    return round(float(match[1]) * unit)


def size_text(size: int) -> str:
    """Format a size for `parse_size`, in the largest unit in which it is exact."""
    for power in range(5, 0, -1):
        for base, infix in ((1024, "i"), (1000, "")):
            if size and size % base**power == 0:
                return (
                    f"{size // base**power}"
                    f" {' kMGTP'[power] if not infix else ' KMGTP'[power]}{infix}B"
                )
    return f"{size} B"


def rounded_size(size: int) -> str:
    """Format a size for display: `812 B`, `1.2 MB`."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"


def local_time(moment: float, now: float | None = None) -> str:
    """Return a time (seconds since the epoch) by the local clock: as `3 min ago`, or by date.

    Within an hour it is relative to the current time `now`; then it is `today 09:12`, or
    `2026-05-01 09:12`.
    """
    at = datetime.fromtimestamp(moment)
    current = datetime.now() if now is None else datetime.fromtimestamp(now)
    seconds = (current - at).total_seconds()
    if 0 <= seconds < 60:
        return f"{seconds:.0f} s ago"
    if 0 <= seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    return f"today {at:%H:%M}" if at.date() == current.date() else f"{at:%Y-%m-%d %H:%M}"
