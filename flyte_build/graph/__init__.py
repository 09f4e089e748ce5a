"""The generic build graph: nodes, resolving, explaining. It knows keys and records, and
no product.
"""
