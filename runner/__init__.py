"""Actions, engines, the worker and the history of runs. It takes values and protocols, and never
reads configuration.
"""
