"""Deployments: their content and names, and storing, finding and comparing them."""
