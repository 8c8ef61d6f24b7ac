"""What a run will need before it is queued: memory, communication, arithmetic, by layout."""
