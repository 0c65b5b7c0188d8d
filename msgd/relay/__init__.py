"""msgd-relay: carries archives to other machines, over a NATS JetStream stream.

`ship` publishes what this machine's archive holds, `collect` writes it as the same day files on
another. What goes where is decided without I/O in blocks.py (ship's side) and copies.py,
following.py (collect's); engine.py is the only one that knows the library nats-py. Nothing here
talks to msgd itself: the archive's files say all.
"""
