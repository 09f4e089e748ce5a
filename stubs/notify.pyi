from flyte_build.notify import *
