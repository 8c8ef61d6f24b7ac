"""Indices, embeddings and traits of plants."""
