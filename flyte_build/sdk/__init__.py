"""Python's face of the verbs."""
