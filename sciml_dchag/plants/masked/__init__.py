"""The task of masked autoencoding."""
