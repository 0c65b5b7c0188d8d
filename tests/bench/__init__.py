"""The benchmark of msgd beside its peers: `make bench` (see README.md in this folder)."""
