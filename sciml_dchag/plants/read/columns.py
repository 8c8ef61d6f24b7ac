"""What columns of a user's tables are called that say which image or plant a row is of.

As `files.tables.plain_name` spells them: without capitals, blanks, dashes and underscores.
"""

from __future__ import annotations

IMAGE_COLUMNS = ("cube", "file", "filename", "image", "imagename", "imagefile", "name")
"""Columns that name images, the surest first."""
PLANT_ID_COLUMNS = ("plantid",)
"""The column that says which plant an image shows; its values stay text."""
