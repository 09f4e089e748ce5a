"""Counters of work done during preparation, for tests and `--output-format json`."""

from __future__ import annotations

from _thread import allocate_lock


class Counters:
    """Totals of one command: sizes in bytes, everything else a count. Thread-safe."""

    NAMES = (
        "files_stated",
        "files_read",
        "bytes_hashed",
        "blobs_written",
        "bytes_written",
        "requests",
        "bytes_sent",
        "bytes_received",
        "layers_made",
    )

    def __init__(self) -> None:
        self._totals = dict.fromkeys(self.NAMES, 0)
        self._lock = allocate_lock()

    def add(self, **amounts: int) -> None:
        """Add to the named totals. Raises `KeyError` for a name that is not in `NAMES`."""
        with self._lock:
            for name, amount in amounts.items():
                self._totals[name] += amount

    def snapshot(self) -> dict[str, int]:
        """Return all totals by name."""
        with self._lock:
            return dict(self._totals)
