"""Verification: area weights, scores, plots and the report.

`weights` and `metrics` hold the formulas, `plots` and `report` show the numbers. Nothing is
imported here, so that `evaluation.weights` stays light for the training loss.
"""
