"""Python API for running, building and deploying."""
