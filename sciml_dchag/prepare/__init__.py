"""From raw files to the store: readers, grids, regridding."""
