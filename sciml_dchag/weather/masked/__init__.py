"""The task of masked autoencoding of weather: an encoder learnt without lead times."""
