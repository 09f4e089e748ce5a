"""Limits of a bundle, so that a run started in `$HOME` stops early and lists what is so large."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flyte_build.errors import BudgetExceeded


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits for the number of files, their total bytes, and the seconds to walk over them."""

    files: int = 200_000
    bytes: int = 4 << 30
    seconds: float = 120.0


class Meter:
    """Counter of a walk, checked against a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._began = time.monotonic()
        self._files = self._size = 0
        self._folders: dict[str, tuple[int, int]] = {}

    def enter(self, folder: str, names: int, size: int) -> None:
        """Count a directory's names and the bytes of its files. Raises `BudgetExceeded`."""
        self._files += names
        self._size += size
        self._folders[folder] = (names, size)
        seconds = time.monotonic() - self._began
        if self._files > self._budget.files:
            raise self._exceeded(f"more than {self._budget.files:,} files")
        if self._size > self._budget.bytes:
            raise self._exceeded(f"more than {self._budget.bytes / (1 << 30):.1f} GiB")
        if seconds > self._budget.seconds:
            raise self._exceeded(
                f"walking over them took more than {self._budget.seconds:.0f} seconds"
            )

    def _exceeded(self, what: str) -> BudgetExceeded:
        totals: dict[str, tuple[int, int]] = {}
        for folder, (files, size) in self._folders.items():
            top = "/".join(folder.split("/")[:2]).rstrip("/") or "(the root itself)"
            before = totals.get(top, (0, 0))
            totals[top] = (before[0] + files, before[1] + size)
        worst = sorted(totals.items(), key=lambda item: (-item[1][1], -item[1][0]))[:10]
        listed = "".join(
            f"\n  /{name}/    # {files:,} names, {size / 1e6:,.1f} MB"
            for name, (files, size) in worst
        )
        return BudgetExceeded(
            f"The project is too large for a bundle: {what}",
            why=(
                "Is it the right root? `--root-dir` sets it, and `--copy-style loaded_modules`"
                " bundles only what is imported."
            ),
            hint=(
                f"Add the largest that you do not need to `.flyteignore`:{listed}\nOr raise the"
                " limits: bundle.max_files, bundle.max_size and bundle.max_scan_time."
            ),
        )
