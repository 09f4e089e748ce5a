"""Inputs and outputs: their types, the one converter for all of them, and documents of them."""
