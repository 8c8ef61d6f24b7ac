"""Forecasts that a model must beat: persistence and its kin, climatology, linear regression."""
