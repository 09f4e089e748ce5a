"""Discovery: finding a file's tasks by importing it, watched, in a process of its own; cached."""
