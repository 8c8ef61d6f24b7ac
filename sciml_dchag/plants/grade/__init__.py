"""Grades: how severely the plants of an image are affected, on a scale of the user's."""
