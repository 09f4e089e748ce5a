"""`import flyte` is `import flyte_build`.

A module, not a package: where the other distribution of this name is installed too, its package
comes first, whole.
"""

from flyte_build._alias import install_alias

install_alias()
if __name__ == "__main__":
    import flyte_build.__main__  # noqa: F401  # It runs the command line.
