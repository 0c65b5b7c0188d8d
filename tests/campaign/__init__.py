"""Long runs that prove that nothing echoed is lost: kills, power cuts, abuse, a soak.

Short runs of them are in tests/test_*.py; `make campaign` runs the long ones. What starts the
daemon, breaks the disk and checks the archive is in tests/lab.
"""
