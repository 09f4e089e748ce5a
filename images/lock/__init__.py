"""Locking of images: requirements, resolved and pinned in flyte.lock."""
