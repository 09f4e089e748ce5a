"""The verbs: one file for each, named as the command is. Here stores, engines and registries are
chosen.
"""
