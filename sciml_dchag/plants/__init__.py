"""Plants: from raw hyperspectral images to scored reconstructions and traits."""
