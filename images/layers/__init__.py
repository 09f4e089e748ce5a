"""Layers of images: wheels, files, and the runtime."""
