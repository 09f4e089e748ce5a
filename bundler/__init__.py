"""Source files -> tree -> bundle -> files again.

It knows files and digests, never tasks or images.
"""
