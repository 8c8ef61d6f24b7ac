"""From raw weather files of any layout to a store."""
