"""The laboratory: the real daemon, clients, a clock that jumps, disks that fill, system calls.

Short tests and the campaign share it. What is here starts things, breaks them, and looks at them;
what has to hold is asserted by the tests and by `check`. Nothing here imports a test.
"""
