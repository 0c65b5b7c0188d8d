"""The command behind `make bench`."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import generator, machine, report
from .counting import use_pages
from .matches import all_matches, interpreters
from .pairs import Figures, Match
from .peers import PEERS, add_interpreter
from .process import BenchError
from .report import Results
from .stand import Stand
from .tools import NotInstalledError, Tools, make_certificates, python

RESULTS = Path(__file__).parent / "results"
PAGES = 512 << 20  # bytes that a run may write
NOTHING: Figures = {}  # the other side of a match that has none


def main() -> int:
    options = _options()
    _raise_descriptor_limit()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="b", dir=options.directory) as name:
        place = Path(name).resolve()
        generator.build(place)
        tools = Tools(place, options.peers)
        make_certificates(tools)
        matches = _chosen(options.only, options.python)
        Benchmark(Stand(tools, place, options.scale), matches).run(options.minutes * 60)
        versions = {name: peer.describe_version(tools) for name, peer in PEERS.items()}
        results = Results(machine.describe(place, python()), versions, matches)
    report.write(results, options.results)
    print((options.results / "results.md").read_text())
    return 1 if results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure msgd beside its peers.")
    add = parser.add_argument
    add("--minutes", type=float, default=25.0, help="no new pair begins behind them (25)")
    add("--scale", type=float, default=1.0, help="share of the messages, for a quick look (1)")
    add("--only", default="", help="only what has a key that begins so; commas between several")
    add("--directory", type=Path, default=Path("build/bench"), help="where all archives lie")
    add("--results", type=Path, default=RESULTS, help="where the report goes")
    add("--peers", type=Path, default=_unpacked(), help="root of packages that were unpacked")
    add("--python", action="append", default=[], metavar="NAME=PATH", help="further interpreters")
    return parser.parse_args()


def _unpacked() -> Path | None:
    name = os.environ.get("BENCH_PEERS")
    return Path(name).resolve() if name else None


def _raise_descriptor_limit() -> None:
    """Ten thousand connections need as many descriptors, in the generator and in the server."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _chosen(only: str, pythons: list[str]) -> list[Match]:
    names = []
    for words in pythons:
        name, _, path = words.partition("=")
        names.append(name)
        add_interpreter(name, path)
    prefixes = tuple(only.split(","))
    matches = [*all_matches(), *interpreters(names)]
    return [match for match in matches if match.key.startswith(prefixes)]


@dataclass(slots=True)
class Benchmark:
    """First the fewest pairs of each; then the time goes where it is needed most."""

    stand: Stand
    matches: list[Match]

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            match = max(self.matches, key=lambda match: match.need)
            if match.need <= 1:
                return
            self._four(match)
        self._say("the time is over")

    def _four(self, match: Match) -> None:
        """A B B A: two pairs, each close in time."""
        others = machine.Others()
        use_pages(self.stand.place, int(PAGES * min(self.stand.scale, 1)))
        one, other = match.one, match.other or (lambda stand: NOTHING)
        try:
            first = one(self.stand), other(self.stand)
            last = other(self.stand), one(self.stand)
        except NotInstalledError as error:
            match.problem = str(error)
        except (BenchError, OSError, AssertionError) as error:
            match.failures.append(f"{error.__class__.__name__}: {error}")
        else:
            match.pairs += [first, (last[1], last[0])]
            match.others.append(others.share())
        match.look()
        self._tell(match)

    def _tell(self, match: Match) -> None:
        words = match.problem or (match.failures[-1] if match.failures else "")
        for target in match.targets:
            found = match.interval(target.figure)
            if found is not None:
                words += f" {found.middle:.3g} [{found.low:.3g}, {found.high:.3g}]"
        self._say(f"{match.key}, {len(match.pairs)} pairs: {words}")

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
