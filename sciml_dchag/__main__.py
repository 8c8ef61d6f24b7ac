"""Lets `python -m sciml_dchag`, and so torchrun, start the command line."""

from sciml_dchag.cli import start

if __name__ == "__main__":
    start()
