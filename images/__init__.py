"""Images: declarations -> locks -> layers -> OCI images and environments."""
