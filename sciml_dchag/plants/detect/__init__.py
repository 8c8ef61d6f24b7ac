"""The task of finding objects in images of plants: lesions of a leaf, leaves of a plant."""
