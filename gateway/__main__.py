"""`python -m gateway` is `bulk-gateway`."""

from gateway.cli import entry

if __name__ == "__main__":
    entry()
