"""Synthetic images of poplars, labelled as such."""
