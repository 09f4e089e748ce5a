"""Declarations by users: environments, tasks, images, resources. Standard library only, no I/O."""
