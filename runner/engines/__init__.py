"""Engines: they execute attempts of actions, each in a place of its own."""
