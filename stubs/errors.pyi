from flyte_build.errors import *
