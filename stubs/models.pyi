from flyte_build.models import *
