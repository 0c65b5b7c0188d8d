"""The loop and its clients: sockets in, one commit for all of them, echoes out.

A message comes in at `connection.Connection.receive` and its echo goes out at
`connection.Connection.send`; `loop.Server` is the only place that knows both the clients and the
archive. What a message means is msgd.wire's business, what a record looks like msgd.archive's.
"""
