"""The words on the wire and what they mean, for both ends, without any I/O.

A message comes in as bytes at `server.ServerProtocol.receive` and goes out as an event; the echo
of it comes in at `client.ClientProtocol.receive`. Nothing here imports from another folder.
"""
