"""Building of images: bases, plans, nodes, and publishing."""
