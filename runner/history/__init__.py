"""The history of runs: what ran, how it ended, and what it printed."""
