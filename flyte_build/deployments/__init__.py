"""Deployments: what one is, how it is named and kept in a repository, how it is found, and how two
differ.
"""
