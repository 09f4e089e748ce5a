"""What images are locked to: requirements, resolved and pinned in flyte.lock."""
