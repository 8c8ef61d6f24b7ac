"""The task of forecasting."""
