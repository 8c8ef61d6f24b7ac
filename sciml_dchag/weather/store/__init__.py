"""The weather store: layout, writing, reading, statistics, climatology."""
