"""Readers of hyperspectral files."""
