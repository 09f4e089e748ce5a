"""Copy styles: how much of a project goes into its bundle."""

from __future__ import annotations

from typing import Literal

CopyStyle = Literal["loaded_modules", "all", "none"]
COPY_STYLES: tuple[CopyStyle, ...] = ("loaded_modules", "all", "none")
