"""The day files: records are written here, proved to be on stable storage, and read again.

A message comes in as a record in the batch of `archive.Archive.commit` and is kept when that has
counted it; `Archive.sessions` tells which number of a session was the last. After a crash
`recovery` finds these numbers again, by `scan` and the `state` file; `reader` reads records for
everybody else, up to where `final` says that nothing changes any more. Nothing here knows of
clients, the wire, or the configuration.
"""
