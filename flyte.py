"""`import flyte` imports `flyte_build`.

This is a module, not a package: if the other distribution of this name is installed as well, its
package takes precedence as a whole.
"""

from flyte_build._alias import install_alias

install_alias()
if __name__ == "__main__":
    import flyte_build.__main__  # noqa: F401  # Runs the command line.
