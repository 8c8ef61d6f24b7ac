"""One model on many processes: the mesh, the communication, and `parallelize`."""
