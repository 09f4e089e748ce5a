"""What users declare: environments, tasks, images, resources. The standard library only, and no
I/O.
"""
