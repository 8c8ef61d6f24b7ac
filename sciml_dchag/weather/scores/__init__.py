"""Scores of forecasts, their tables and pictures."""
