"""Losses and how a model is called, in torch alone: no store, no rank."""
