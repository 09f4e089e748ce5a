"""The user's code on disk: where it lies, what of it stays out of everything, how it
is imported.
"""
