"""Actions, engines, the worker and the history of runs.

This part takes values and protocols, and never reads configuration.
"""
