"""Regridding weights and their use."""
