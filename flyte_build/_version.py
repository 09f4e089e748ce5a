"""The version, for the face, the keys and the package alike. Imports nothing."""

__version__ = "0.1.0"
