"""The command behind `make bench`."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import generator, machine, report, special
from .cases import Case, all_cases
from .peers import PEERS, Tools, python
from .process import BenchError
from .results import Results
from .runner import run_case

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    options = _options()
    _raise_descriptor_limit()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        place = Path(name).resolve()
        generator.build(place)
        tools = Tools(place, options.peers)
        versions = {name: peer.describe_version(tools) for name, peer in PEERS.items()}
        results = Results(machine.describe(place, python()), versions)
        Benchmark(tools, place, options.scale, results).run(options.rounds, options.only)
    report.write(results, options.results)
    print((options.results / "results.md").read_text())
    return 1 if results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure msgd beside its peers.")
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="how often everything is run in turn (5)")
    add("--scale", type=float, default=1.0, help="share of the messages, for a quick look (1)")
    add("--only", default="", help="only what has a key that begins so; commas between several")
    add("--directory", type=Path, default=Path("build/bench"), help="where all archives lie")
    add("--results", type=Path, default=RESULTS, help="where the report goes")
    add("--peers", type=Path, default=_unpacked(), help="root of packages that were unpacked")
    return parser.parse_args()


def _unpacked() -> Path | None:
    name = os.environ.get("BENCH_PEERS")
    return Path(name).resolve() if name else None


def _raise_descriptor_limit() -> None:
    """Ten thousand connections need as many descriptors, in the generator and in the server."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class Benchmark:
    """Everything in turn, and that several times: so a drift of the machine hits all alike."""

    tools: Tools
    place: Path
    scale: float
    results: Results

    def run(self, rounds: int, only: str) -> None:
        prefixes = tuple(only.split(","))
        installed = self.results.versions
        cases = [one for one in all_cases() if installed[one.peer]]
        for turn in range(1, rounds + 1):
            for case in cases:
                if case.key.startswith(prefixes):
                    self._push(turn, case)
            for one in special.ALL:
                if one.key.startswith(prefixes):
                    self._measure(turn, one)

    def _push(self, turn: int, case: Case) -> None:
        others = machine.Others()
        try:
            run = run_case(case, self.tools, self.place, self.scale)
        except (BenchError, OSError) as error:
            self._fail(turn, case.key, error)
            return
        self.results.runs[case.key].append(run)
        self.results.others[case.key].append(others.share())
        rate = run.messages / run.seconds
        self._say(f"{turn} {case.key}: {rate:,.0f}/s, {run.seconds:.2f} s, p99 {run.p99_us:,.0f}")

    def _measure(self, turn: int, one: special.Special) -> None:
        try:
            measured = one.measure(self.tools, self.place, self.scale)
        except (BenchError, OSError) as error:
            self._fail(turn, one.key, error)
            return
        for name, value in measured.items():
            self.results.values[f"{one.key}/{name}"].append(value)
        self._say(f"{turn} {one.key}: {measured}")

    def _fail(self, turn: int, key: str, error: Exception) -> None:
        self.results.failures.append(f"{key}, round {turn}: {error}")
        self._say(f"{turn} {key}: {error}")

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
