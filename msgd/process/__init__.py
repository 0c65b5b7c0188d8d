"""Being a good daemon: signals, systemd, the daemon's own log, the background, lock files.

No message comes through here, and nothing here knows what the daemon is for.
"""
