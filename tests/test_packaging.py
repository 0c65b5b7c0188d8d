"""What is shipped beside the code agrees with it, and with itself."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import msgd
from tests.campaign.bound import kernel_memory, wide_memory

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNITS = ROOT / "packaging/systemd"


def settings(unit: str, name: str) -> list[str]:
    text = (UNITS / unit).read_text()
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def locked() -> dict[str, str]:
    """The version of each distribution that tests are run with, all with hashes."""
    text = (ROOT / "tests/requirements.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    return dict(line.split()[0].split("==") for line in lines)


def test_each_dependency_is_pinned_with_its_hash() -> None:
    """Else `make lock` has been forgotten."""
    extras = PROJECT["optional-dependencies"].values()
    for requirement in [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]:
        found = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(?:(>=|==)(.*))?", requirement)
        assert found, requirement
        name, relation, version = found.groups()
        pinned = locked()[re.sub("[._]", "-", name).lower()]
        assert relation != "==" or pinned == version, requirement


def test_the_bill_of_materials_names_every_part(tmp_path: Path) -> None:
    package = tmp_path / "msgd.deb"
    package.write_bytes(b"a package")
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/sbom", package], capture_output=True, check=True
    )
    bill = json.loads(done.stdout)
    own = bill["metadata"]["component"]
    assert own["version"] == msgd.__version__
    assert own["hashes"][0]["content"] == hashlib.sha256(b"a package").hexdigest()
    parts = {part["name"] + part["properties"][0]["value"] for part in bill["components"]}
    assert parts == {*PROJECT["dependencies"], "python" + PROJECT["requires-python"]}


def test_the_socket_drops_what_the_service_drops() -> None:
    """The lines of the service do not concern the sockets that it is handed."""
    for name in ("IPAddressDeny", "IPAddressAllow"):
        assert settings("msgd.socket", name) == settings("msgd.service", name) != []


def test_the_unit_bears_what_the_defaults_may_take() -> None:
    [most] = settings("msgd.service", "MemoryMax")
    page = (ROOT / "man/msgd.8").read_text()
    daemon = re.search(r"and (\d+) MiB if all speak TLS", page)
    kernel = re.search(r"up to (\d+) KiB for a client that neither reads", page)
    assert daemon
    assert kernel
    assert int(kernel[1]) << 10 == kernel_memory(1)
    wide = re.search(r"up to (\d+) MiB for all of them", page)
    assert wide
    assert int(wide[1]) << 20 == wide_memory()
    told = (int(daemon[1]) << 20) + kernel_memory(4096) + wide_memory()
    assert 1.2 * told < int(most.removesuffix("G")) << 30 < 2 * told


@pytest.mark.parametrize("suffix", ["6743", "[::1]:6743", "/run/msgd/msgd.sock"])
def test_the_socket_listens_where_the_service_does(suffix: str) -> None:
    assert any(one.endswith(suffix) for one in settings("msgd.socket", "ListenStream"))
