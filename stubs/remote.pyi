from flyte_build.remote import *
