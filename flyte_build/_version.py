"""Version of flyte-build, used by the API, keys and the package's metadata. Imports nothing."""

__version__ = "0.1.0"
