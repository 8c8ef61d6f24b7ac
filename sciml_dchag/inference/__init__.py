"""Use of trained models: forecasts in physical units, and stores of them."""
