"""Work of the local Docker Engine for images: running build steps, and loading images."""
