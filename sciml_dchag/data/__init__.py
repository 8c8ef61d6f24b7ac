"""Stores and what is read from them: states, statistics, climatology, forcings, batches."""
