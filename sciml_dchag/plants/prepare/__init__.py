"""From raw images to a store of reflectance and plant masks."""
