"""The model, in torch alone: no data formats, no ranks."""
