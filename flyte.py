"""`import flyte` is `import flyte_build`.

A module, not a package: where the other distribution of this name is installed too, its package comes first, whole.
"""

import flyte_build

flyte_build.install_alias()
