"""Lows and highs as objects: found, matched, counted."""
