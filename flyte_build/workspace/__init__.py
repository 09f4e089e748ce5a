"""The user's code on disk: where it is, which of it is ignored, how it is imported."""
