"""``python -m msgd.ctl`` is msgctl."""

from __future__ import annotations

from msgd.ctl import main

main()
