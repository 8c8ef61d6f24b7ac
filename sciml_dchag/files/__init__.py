"""Files that are whole or not there: resumable stores, shards, progress."""
