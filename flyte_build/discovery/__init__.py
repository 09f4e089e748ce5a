"""Which tasks a file holds: found by importing it under watch, in a process of its own, and
remembered.
"""
