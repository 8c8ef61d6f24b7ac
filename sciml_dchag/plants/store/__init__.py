"""The plant store: layout, writing, reading, statistics."""
