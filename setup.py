"""Packages of the distribution: the parts, which are directories at the top, below `flyte_build`.

The list is computed. setuptools builds in a temporary directory: one that stays would put modules
that are gone from the tree into the next wheel.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from setuptools import setup

PARTS = ("cas", "bundler", "images", "runner", "cli")
folders = {"flyte_build": "flyte_build", **{f"flyte_build.{part}": part for part in PARTS}}
packages = dict(folders)
for name, folder in folders.items():
    for marker in Path(folder).rglob("__init__.py"):
        inner = marker.parent.relative_to(folder).parts
        if not any((Path(folder) / inner[0]).is_symlink() for _ in inner[:1]):
            packages[".".join((name, *inner))] = str(marker.parent)

scratch = tempfile.mkdtemp(prefix="flyte-build-")
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
setup(
    packages=[*sorted(packages), "flyte-stubs"],
    package_dir={**packages, "flyte-stubs": "stubs", "": "."},
    py_modules=["flyte"],
    package_data={"flyte_build": ["py.typed"], "flyte-stubs": ["*.pyi"]},
    options={"build": {"build_base": scratch}, "egg_info": {"egg_base": scratch}},
)
