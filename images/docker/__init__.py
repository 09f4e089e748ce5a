"""What the Docker Engine of this machine does for images."""
