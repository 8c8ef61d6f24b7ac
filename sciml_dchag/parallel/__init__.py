"""One model on many processes: the mesh, what ranks tell each other, and `parallelize`."""
