"""Who is served when: short work first, each in turn, and nobody never."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from msgd.server.fairness import Fairness, Pace, Share, Turn

if TYPE_CHECKING:
    from msgd.server.connection import Connection

PACE = Pace(1 << 30, 0.0007)


@dataclass(eq=False)
class Waiting:
    """As much of a `Connection` as its place among others depends on."""

    there: int
    held: int = 0
    new: bool = False
    share: Share = field(default_factory=Share)

    def to_take(self) -> int:
        return self.there

    def is_new(self) -> bool:
        return self.new


def serve(
    fairness: Fairness, waiting: list[Waiting], seconds: float = 0.00005, now: float = 0.0
) -> list[Waiting]:
    """Those who are served in one turn, of clients that all cost as much as this."""
    return [client for group in groups(fairness, waiting, seconds, now) for client in group]


def groups(
    fairness: Fairness, waiting: list[Waiting], seconds: float, now: float = 0.0
) -> list[list[Waiting]]:
    """The same, by groups: what each is owed goes out when its group is complete."""
    turn = Turn(fairness, cast("list[Connection]", waiting), PACE, now, clock=lambda: now)
    served = list[list[Waiting]]()
    while turn.goes_on:
        served.append([])
        for client in turn.group():
            served[-1].append(cast("Waiting", client))
            turn.made = client.to_take()
            now += seconds
    return served


def test_short_work_goes_first_however_much_was_had_before() -> None:
    """Thousands have prepared what takes milliseconds; one sends message after message."""
    fairness, polite = Fairness(), Waiting(30)
    sleepers = [Waiting(10, held=60_000) for _ in range(4000)]
    for _ in range(1000):
        assert serve(fairness, [*sleepers, polite], 0.007)[0] is polite


def test_one_of_each_length_of_work_is_served_in_each_turn() -> None:
    fairness = Fairness()
    short = [Waiting(30) for _ in range(1000)]
    longer, longest = Waiting(1000), Waiting(10, held=60_000)
    for _ in range(10):
        served = serve(fairness, [longest, longer, *short], 0.001)
        assert longer in served
        assert longest in served


def test_among_equals_each_has_its_turn() -> None:
    fairness = Fairness()
    equals = [Waiting(30) for _ in range(100)]
    served = list[Waiting]()
    for _ in range(100):
        served += serve(fairness, equals, 0.001)
    counts = {served.count(client) for client in equals}
    assert max(counts) - min(counts) <= 1


def test_time_that_was_taken_from_us_is_not_charged() -> None:
    """The processor was busy with something else while a short message was handled."""
    fairness, unlucky, other = Fairness(), Waiting(30), Waiting(30)
    serve(fairness, [unlucky, other], 0.5)
    assert unlucky.share.spent < 0.001


def test_who_has_left_is_let_go_behind_those_who_are_talking() -> None:
    gone, polite = [Waiting(0) for _ in range(10)], Waiting(30)
    assert serve(Fairness(), [*gone, polite])[0] is polite


def test_no_echo_waits_for_the_handshakes_of_newcomers() -> None:
    """And they do not make the turn long for who comes next; but each of them comes in."""
    fairness, polite, pusher = Fairness(), Waiting(30), Waiting(100_000)
    newcomers = [Waiting(500, new=True) for _ in range(1000)]
    left = set(map(id, newcomers))
    for _ in range(340):
        first, *others = groups(fairness, [*newcomers, polite, pusher], 0.001)
        assert first == [polite]
        late = [client for group in others for client in group]
        assert len(late) <= 4
        assert pusher in late
        left.difference_update(map(id, late))
    assert not left


def test_newcomers_come_in_however_many_are_talking() -> None:
    """After a storm of connections those who are in fill each turn, and more wait outside."""
    fairness, talking = Fairness(), [Waiting(30) for _ in range(1000)]
    newcomers = [Waiting(5, new=True) for _ in range(100)]
    served = serve(fairness, [*talking, *newcomers], 0.0001)
    assert len([client for client in served if client.new]) >= 30


def test_who_has_pushed_is_not_taken_to_push_still() -> None:
    fairness, polite, pusher = Fairness(), Waiting(30), Waiting(100_000)
    polite.share.taken = 100_000
    assert serve(fairness, [pusher, polite], 0.001)[0] is polite
