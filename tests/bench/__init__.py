"""The benchmark suite: the gateway beside its peers, measured the same way. See README.md."""
