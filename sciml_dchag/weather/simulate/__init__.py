"""A climate model's weather, labelled as simulated."""
