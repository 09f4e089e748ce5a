"""Tasks that come with us."""
