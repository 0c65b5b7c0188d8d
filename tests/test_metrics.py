"""The figures' file, read by the parsers that monitoring systems use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from msgd.process.metrics import Registry
from msgd.server.figures import Figures

openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
older = pytest.importorskip("prometheus_client.parser")


def samples(text: str) -> dict[str, float]:
    """By name and labels, as the OpenMetrics parser reads them; the older one must agree."""
    found = {}
    for family in openmetrics.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    assert sum(len(f.samples) for f in older.text_string_to_metric_families(text)) == len(found)
    return found


def test_each_kind(tmp_path: Path) -> None:
    registry = Registry()
    registry.counter("a_messages", 'Told "so"\\ here.\nAnd there.').value += 3
    registry.gauge("b_bytes", "Bytes.", "bytes", {"path": 'a"b\\c\nd'}).value = 1 << 60
    seconds = registry.histogram("c_seconds", "Times.", "seconds", bounds=(0.1, 1.0))
    for value in (0.1, 0.5, 7.0):
        seconds.observe(value)
    path = tmp_path / "x.prom"
    path.write_text("earlier")
    registry.write(str(path))
    assert samples(path.read_text()) == {
        "a_messages_total{}": 3,
        'b_bytes{path=a"b\\c\nd}': float(1 << 60),
        "c_seconds_bucket{le=0.1}": 1,
        "c_seconds_bucket{le=1}": 2,
        "c_seconds_bucket{le=+Inf}": 3,
        "c_seconds_sum{}": 7.6,
        "c_seconds_count{}": 3,
    }
    assert os.listdir(tmp_path) == ["x.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_one_figure_for_one_name() -> None:
    registry = Registry()
    first = registry.counter("a", "A.", labels={"x": "1"})
    assert registry.counter("a", "A.", labels={"x": "1"}) is first
    assert registry.counter("a", "A.", labels={"x": "2"}) is not first
    with pytest.raises(ValueError, match="is a counter"):
        registry.gauge("a", "A.")
    with pytest.raises(ValueError, match="must end with its unit"):
        registry.gauge("b", "B.", "bytes")


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    for _ in range(3):
        registry.write(str(tmp_path / "no" / "x.prom"))
    assert [record.getMessage() for record in caplog.records] == [
        f"metrics_file: {tmp_path}/no/x.prom: No such file or directory; "
        "figures are not written until then"
    ]
    (tmp_path / "no").mkdir()
    registry.write(str(tmp_path / "no" / "x.prom"))
    assert (tmp_path / "no" / "x.prom").read_text() == "# EOF\n"


def test_the_daemons_figures(tmp_path: Path) -> None:
    figures = Figures()
    figures.messages.value += 2
    figures.refused("message too long")
    figures.refused("message too long", 2)
    figures.turn_seconds.observe(0.002)
    figures.write(str(tmp_path / "msgd.prom"), str(tmp_path))
    found = samples((tmp_path / "msgd.prom").read_text())
    assert found["msgd_archived_messages_total{}"] == 2
    assert found["msgd_refused_messages_total{reason=message too long}"] == 3
    assert found["msgd_turn_seconds_bucket{le=0.003}"] == 1
    assert found["msgd_archive_free_bytes{}"] > 0


RULES = Path(__file__).parent.parent / "packaging" / "prometheus" / "msgd.rules.yaml"


def test_the_alerts_ask_for_figures_that_there_are() -> None:
    sources = "".join(path.read_text() for path in (RULES.parents[2] / "msgd").rglob("*.py"))
    known = set(re.findall(r'"(msgd_\w+)"', sources))
    asked = set(re.findall(r"\bmsgd_\w+", RULES.read_text()))
    assert asked <= known
    assert len(asked) >= 6


def test_promtool_finds_nothing() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
