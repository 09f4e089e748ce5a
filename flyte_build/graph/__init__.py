"""The generic build graph: nodes, resolution, explanations.

It knows keys and records, but no product.
"""
