"""Laws with units: the simplest formulas that relate the columns of a table."""
