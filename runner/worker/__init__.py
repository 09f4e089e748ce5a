"""The worker: a process that waits for one action, runs it, writes its result, and ends."""
