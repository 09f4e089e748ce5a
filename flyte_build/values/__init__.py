"""Inputs and outputs of tasks: their types, conversion of values, and documents with values."""
