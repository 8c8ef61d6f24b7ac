"""The task of interpolation: the state at any time between two states."""
