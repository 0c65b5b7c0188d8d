"""The stream as `collect` makes it, and what of one that is there already is otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgd.relay.blocks import PREFIX
from msgd.relay.options import Collect

_DAY_NANOSECONDS = 86_400 * 1_000_000_000


def wanted(name: str, config: Collect) -> dict[str, Any]:
    """What JetStream is asked for. A full stream refuses: the day files wait, nothing is lost."""
    return {
        "name": name,
        "subjects": [f"{PREFIX}.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": config.replicas,
        "max_bytes": config.max_bytes,
        "max_age": config.max_age_days * _DAY_NANOSECONDS,
        "max_msgs": -1,
        "max_consumers": -1,
    }


def differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """A line of the log for each; the stream is left as it is."""
    for key in ("subjects", "discard", "storage", "num_replicas", "max_bytes", "max_age"):
        if found.get(key) != asked[key]:
            yield (
                f"the stream {asked['name']} has {key} {found.get(key)}, not {asked[key]} as "
                "configured; it stays so (nats stream edit)"
            )
