"""`flyte.logger`: the logger for messages of tasks."""

from __future__ import annotations

import logging

logger = logging.getLogger("flyte")
