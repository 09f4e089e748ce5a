"""Stub of `flyte` for type checkers: the same as `flyte_build` (PEP 561, stub-only packages)."""

from flyte_build import *

from . import durable as durable
from . import errors as errors
from . import models as models
from . import notify as notify
from . import remote as remote
