"""The packages as files: clean, complete, reproducible. Nothing is booted here."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from .conftest import SOURCE, need, output

CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
CONTENTS = (
    "/etc/lnav/formats/msgd/msgd.json",
    "/etc/msgd.yaml",
    "/lib/systemd/system/msgd.service",
    "/lib/systemd/system/msgd.socket",
    "/usr/bin/msgctl",
    "/usr/bin/msgd",
    "/usr/lib/sysusers.d/msgd.conf",
    "/usr/lib/tmpfiles.d/msgd.conf",
    "/usr/share/bash-completion/completions/msgctl",
    "/usr/share/doc/msgd/README.Debian.gz",
    "/usr/share/fish/vendor_completions.d/msgctl.fish",
    "/usr/share/man/man1/msgctl.1.gz",
    "/usr/share/man/man5/msgd.yaml.5.gz",
    "/usr/share/man/man7/msgd-protocol.7.gz",
    "/usr/share/man/man8/msgd.8.gz",
    "/usr/share/zsh/vendor-completions/_msgctl",
)


def test_the_version_is_the_same_everywhere() -> None:
    code = re.search(r'__version__ = "(.+)"', (SOURCE / "msgd/__init__.py").read_text())
    debian = re.search(r"msgd \((.+)\)", (SOURCE / "packaging/debian/changelog").read_text())
    rpm = re.search(r"^Version: +(.+)$", (SOURCE / "packaging/msgd.spec").read_text(), re.MULTILINE)
    assert code
    assert debian
    assert rpm
    assert code[1] == debian[1] == rpm[1]


def test_lintian_finds_nothing(build: Path) -> None:
    need("lintian")
    changes = next(build.glob("*.changes"))
    found = output("lintian", "--allow-root", "--fail-on", "error,warning", changes, env=CLEAN)
    assert found == ""


def test_two_builds_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    told = output(SOURCE / "packaging/build-deb", tmp_path).splitlines()[-1]
    assert (tmp_path / package.name).read_bytes() == package.read_bytes()
    assert told == f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {package.name}"


def test_everything_is_in_its_place(package: Path) -> None:
    listed = output("dpkg-deb", "--contents", package)
    paths = {line.split(" ./", 1)[1] for line in listed.splitlines()}
    assert [path for path in CONTENTS if path[1:] not in paths] == []


def test_no_other_user_reads_the_configuration_at_any_moment(package: Path) -> None:
    """It has its mode when dpkg unpacks it, before anything else has run."""
    listed = output("dpkg-deb", "--contents", package)
    modes = [
        line[:10] for line in listed.splitlines() if line.endswith(".yaml") and "/etc/" in line
    ]
    assert modes == ["-rw-r-----"] * 2


def test_it_depends_on_nothing_but_debian(package: Path) -> None:
    fields = output("dpkg-deb", "--field", package, "Architecture", "Depends")
    assert "Architecture: all" in fields
    wanted = set(re.split(r",\s*", fields.split("Depends: ")[1].strip()))
    assert {"python3-click", "python3-daemon", "python3-yaml", "python3:any"} < wanted
    assert {name for name in wanted if "systemd" not in name and "python3" not in name} == set()


def test_rpmbuild_builds_what_rpmlint_accepts(tmp_path: Path) -> None:
    need("rpmbuild", "rpmlint", "git")
    output(SOURCE / "packaging/build-rpm", tmp_path)
    package = next(tmp_path.glob("msgd-*.noarch.rpm"))
    spec = SOURCE / "packaging/msgd.spec"
    found = output("rpmlint", "--rpmlintrc", spec.with_suffix(".rpmlintrc"), package, spec)
    assert " 0 errors" in found
    paths = output("rpm", "--query", "--list", "--package", package).splitlines()
    assert {"/etc/msgd.yaml", "/usr/bin/msgd", "/usr/bin/msgctl"} < set(paths)
    needed = output("rpm", "--query", "--requires", "--package", package).split("\n")
    assert {"shadow-utils", "systemd"} < set(needed)  # %pre calls useradd, %post systemctl
    told = output(SOURCE / "packaging/build-rpm", tmp_path / "again").splitlines()[-1]
    assert (tmp_path / "again" / package.name).read_bytes() == package.read_bytes()
    assert told == f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {package.name}"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution, the wheel built from the latter."""
    results = tmp_path_factory.mktemp("distributions")
    output(sys.executable, "-m", "build", "--outdir", results, SOURCE)
    return results


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_pip_installs_both_commands(distributions: Path, kind: str, tmp_path: Path) -> None:
    output(sys.executable, "-m", "venv", tmp_path)
    output(tmp_path / "bin/pip", "install", "--quiet", next(distributions.glob(kind)))
    for command in ("msgd", "msgctl"):
        assert "1.0.0" in output(tmp_path / "bin" / command, "--version", cwd=tmp_path)


def test_pipx_installs_both_commands(distributions: Path, tmp_path: Path) -> None:
    need("pipx")
    environment = {
        **os.environ,
        "PIPX_HOME": str(tmp_path / "home"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
    }
    output("pipx", "install", next(distributions.glob("*.whl")), env=environment)
    for command in ("msgd", "msgctl"):
        assert "1.0.0" in output(tmp_path / "bin" / command, "--version", cwd=tmp_path)
