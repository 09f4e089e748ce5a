"""Building images: bases, plans, nodes, and publishing what was built."""
