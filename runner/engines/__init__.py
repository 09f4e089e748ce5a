"""Engines, which execute attempts of actions."""
