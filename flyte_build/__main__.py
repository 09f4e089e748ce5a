"""`python -m flyte_build` and `python -m flyte`: the command line."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # The current directory: the `flyte` command does not import from it either.

from flyte_build.cli.start import main  # Only now that the path is right.

main()
