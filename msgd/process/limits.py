"""What the kernel lets one process have."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("msgd")

# Beside the clients: files, listeners, children's pipes; and clients over the limit, until told so.
_SPARE_DESCRIPTORS = 256


def allow_descriptors(clients: int) -> int:
    """Each client takes a descriptor; the soft limit is low for the sake of select(2) only.

    Returns how many clients there are descriptors for, up to this number.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = clients + _SPARE_DESCRIPTORS
    try:
        if soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    except OSError as error:
        log.warning("limits.clients: the limit of descriptors stays %d: %s", soft, error.strerror)
    if hard >= needed or hard == resource.RLIM_INFINITY:
        return clients
    fit = max(hard - _SPARE_DESCRIPTORS, hard // 2, 1)
    log.warning(
        "limits.clients: %d need %d descriptors, but the limit (ulimit -Hn) is %d: "
        "up to %d are let in",
        clients,
        needed,
        hard,
        fit,
    )
    return fit
