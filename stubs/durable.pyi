from flyte_build.durable import *
