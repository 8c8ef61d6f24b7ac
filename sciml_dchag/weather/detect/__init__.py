"""The task of finding objects in states: lows from a coarse grid, and how deep they are."""
