"""What all pictures, tables and pages share."""
