"""Content-addressed store: digests, keys, blobs, records, leases and garbage collection.

It knows bytes, never tasks.
"""
