"""The content-addressed store: digests, keys, blobs, records, leases, garbage collection. It knows
bytes, never tasks.
"""
