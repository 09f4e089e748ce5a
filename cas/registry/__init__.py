"""OCI repositories, on a registry or in a folder: what they keep, how it is moved, and how records are kept among it."""
