"""What proves that nothing echoed is lost: loads, faults and checks.

Short runs of them are in tests/test_*.py; `make campaign` runs the long ones.
"""
