"""The history of runs: tasks, results, and logs."""
