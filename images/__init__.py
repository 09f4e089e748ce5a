"""Images: declarations -> locks -> layers -> OCI images and environments. Nothing is built here yet."""
