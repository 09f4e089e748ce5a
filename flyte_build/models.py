"""`flyte.models`: values that describe actions."""

from __future__ import annotations

from .declarations.phase import ActionPhase as ActionPhase
