"""The day files: records are written here, proved to be on stable storage, and read again.

A message comes in as a record at `archive.Archive.append` and is kept when `Archive.commit` has
counted it. Nothing here knows of clients, the wire, or the configuration.
"""
