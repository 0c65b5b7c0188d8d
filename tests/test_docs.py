"""The documents against the code: what exists is described, and what is described exists."""

from __future__ import annotations

import codecs
import doctest
import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pexpect
import pytest

from msgd import daemon
from msgd.config import values as kinds
from msgd.config.options import OPTIONS
from msgd.ctl import exits
from msgd.ctl.commands import VERBS, msgctl
from msgd.password import hash_password
from msgd.process.command import BAD_CONFIG, FAILED, OK, USAGE
from msgd.wire import headers
from msgd.wire.text import escape
from tests.campaign.bound import most_memory
from tests.conftest import SECONDS, Daemon, Start
from tests.test_completions import command_of, options

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "man").glob("*.[1-8]"))
README = (ROOT / "README.md").read_text()
FULL = re.MULTILINE | re.DOTALL


def page(name: str) -> str:
    """The source of a man page, with the characters that mdoc writes as escapes."""
    text = (ROOT / "man" / name).read_text()
    return text.replace(r"\(dq", '"').replace(r"\e", "\\").replace(r"\&", "")


def part(text: str, heading: str) -> str:
    """What stands below a heading, up to the next heading of its rank."""
    macro = heading.split()[0]
    found = re.search(
        rf"^{re.escape(heading)}$(.*?)(?=^{macro.replace('Ss', 'S[sh]')} |\Z)",
        text,
        FULL,
    )
    assert found, f"{heading} is not there"
    return found[1]


def items(text: str) -> list[str]:
    return re.findall(r"^\.It (.*)$", text, re.MULTILINE)


def flags(text: str) -> set[str]:
    """The options that the items of a list are about, as they are typed."""
    return {f"-{flag}" for item in items(text) for flag in re.findall(r"Fl (\S+)", item)}


def code(language: str) -> Iterator[str]:
    """The code of this language in the README."""
    return iter(re.findall(rf"^```{language}\n(.*?)^```", README, FULL))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_mandoc_finds_nothing(path: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", path], capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == ""


def test_there_is_a_page_for_each_of_them() -> None:
    assert [path.name for path in PAGES] == [
        "msgctl.1",
        "msgd-protocol.7",
        "msgd-relay.8",
        "msgd-relay.yaml.5",
        "msgd.8",
        "msgd.yaml.5",
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_page_has_what_a_reader_looks_for(path: Path) -> None:
    wanted = {"NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"}
    if path.suffix in (".1", ".8"):
        wanted |= {"SYNOPSIS", "ENVIRONMENT", "FILES", "EXIT STATUS"}
    assert wanted <= set(re.findall(r"^\.Sh (.*)$", path.read_text(), re.MULTILINE))


def test_every_option_of_msgd() -> None:
    parsers = [daemon._parser(), *msgd_commands().values()]
    known = {flag for one in parsers for action in one._actions for flag in action.option_strings}
    assert flags(page("msgd.8")) == known


def msgd_commands() -> dict[str, ArgumentParser]:
    (choices,) = [action.choices for action in daemon._parser()._actions if action.choices]
    assert isinstance(choices, dict)
    return choices


def test_every_command_of_msgd() -> None:
    assert set(msgd_commands()) == {"hash-password", "make-tls"}
    described = items(page("msgd.8"))
    for command in msgd_commands():
        assert any(item.startswith(f"Cm {command}") for item in described)


def test_every_option_of_msgctl() -> None:
    description = part(page("msgctl.1"), ".Sh DESCRIPTION")
    common = options(msgctl)
    assert flags(description.partition("\n.Ss ")[0]) == common
    for name in VERBS:
        own = options(command_of(name)) - common
        assert flags(part(description, f".Ss {name}")) == own, name


def test_every_verb_of_msgctl() -> None:
    assert set(re.findall(r"^\.Ss (.*)$", page("msgctl.1"), re.MULTILINE)) == set(VERBS)


def test_every_exit_status() -> None:
    mine = {OK, FAILED, USAGE, BAD_CONFIG}
    theirs = {value for name, value in vars(exits).items() if name.isupper()}
    for name, known in ("msgd.8", mine), ("msgctl.1", theirs):
        assert set(map(int, items(part(page(name), ".Sh EXIT STATUS")))) == known


def test_every_key_with_its_default() -> None:
    keys = re.split(r"^\.It Ic (.*)$", page("msgd.yaml.5"), flags=re.MULTILINE)[1:]
    described = dict(zip(keys[::2], keys[1::2], strict=True))
    assert set(described) == {option.name for option in OPTIONS}
    for option in OPTIONS:
        text = described[option.name]
        if option.default is None:
            assert re.search(r"^There is no (fixed )?default:", text, re.MULTILINE)
        else:
            assert f"The default is\n.Ql {kinds.show(option.default)} " in text, option.name


def test_the_bound_on_memory() -> None:
    """What the page tells holds for what the code's constants give, and is not far above it."""
    memory = part(page("msgd.8"), ".Ss Memory")
    found = re.search(r"(\d+) MiB \+ C . (\d+) KiB\n.*and (\d+) KiB in place of", memory, re.DOTALL)
    assert found
    base, plain, tls = int(found[1]) << 20, int(found[2]) << 10, int(found[3]) << 10
    for clients, message_bytes in ((1, 1), (100, 4096), (4096, 65536), (10000, 1 << 20)):
        for each in plain, tls:
            most = most_memory(clients, message_bytes, each == tls)
            assert 0.98 < most / (base + clients * each) <= 1
    default = next(option.default for option in OPTIONS if option.name == "limits.clients")
    told = [(base + default * each) >> 20 for each in (plain, tls)]
    assert f"default of {default} that is {told[0]} MiB, and {told[1]} MiB if" in memory


def test_every_environment_variable() -> None:
    texts = [path.read_text() for path in (ROOT / "msgd").rglob("*.py")]
    sources = "".join(text for text in texts if ".environ" in text)
    sources = re.sub(r"__all__ = \[.*?\]", "", sources, flags=re.DOTALL)
    used = set(re.findall(r'"((?!SC_)[A-Z]+_[A-Z_]+)"', sources))  # SC_ is of sysconf(3)
    pages = page("msgd.8") + page("msgctl.1") + page("msgd-relay.8")
    described = {name for item in items(pages) for name in item.replace(",", "").split()}
    assert {"NOTIFY_SOCKET", "MSGCTL_PORT"} <= used <= described


def test_every_header() -> None:
    described, header = set(), ""
    pattern = r"^\.It (\S+) Ta (none|\w+) Ta (client|server|both) Ta "
    for name, argument, sender in re.findall(pattern, page("msgd-protocol.7"), re.MULTILINE):
        header = name if name != '""' else header
        described |= {(header, argument, one) for one in both(sender)}
    assert described == {
        (header.decode(), rule.argument or "none", sender)
        for header, rule in headers.HEADERS.items()
        for sender in both(rule.sender)
    }


def both(sender: str) -> list[str]:
    return ["client", "server"] if sender == "both" else [sender]


def test_every_reason_of_a_refusal() -> None:
    reasons = {
        value for name, value in vars(headers).items() if name.isupper() and isinstance(value, str)
    }
    failures = part(page("msgd-protocol.7"), ".Ss Failures")
    assert {item.removeprefix("Li ") for item in items(failures)} == reasons


def test_every_character_that_is_escaped() -> None:
    described = {code for code in range(0x20000, 0x110000) if code & 0xFFFE == 0xFFFE}
    for row in items(part(page("msgd-protocol.7"), ".Ss Text")):
        characters, _, escapes = row.replace(" Ta ", "\t").split("\t")
        found = [int(code, 16) for code in re.findall(r"U\+([0-9A-F]{4,6})", characters)]
        shown = [int(code, 16) for code in re.findall(r"\\[xuU]([0-9a-f]+)", escapes)]
        if found:
            assert found == shown
            described |= set(range(found[0], found[-1] + 1))
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code != 10]
    archived = escape("\n".join(every).encode()).decode().split("\n")
    pairs = zip(every, archived, strict=True)
    assert described == {ord(sent) for sent, text in pairs if sent != text}


class Turn(NamedTuple):
    """Some bytes of the worked exchange, and who sends them."""

    sender: str
    shown: str
    data: bytes


def exchange(heading: str) -> list[Turn]:
    lines = part(page("msgd-protocol.7"), f".Ss {heading} framing, byte by byte")
    pattern = r"^(client|server) +(\S.*?) +((?:[0-9a-f]{2}\s+)*[0-9a-f]{2})$"
    found = re.findall(pattern, lines, re.MULTILINE)
    return [Turn(sender, shown, bytes.fromhex(data)) for sender, shown, data in found]


@pytest.mark.parametrize("heading", ["Line", "Bare"])
def test_the_worked_exchange(heading: str, start: Start) -> None:
    msgd = start(f"password_hash: {hash_password(b'secret')}\nlisten: 127.0.0.1\n")
    turns = exchange(heading)
    assert len(turns) > 6
    with msgd.connect() as client:
        for turn in turns:
            assert codecs.decode(turn.shown, "unicode_escape").encode("latin-1") == turn.data
            if turn.sender == "client":
                client.send(turn.data)
            else:
                client.expect(turn.data)
        origin = client.origin
        assert client.finish() == b""
    if heading == "Line":
        archived = re.sub(r"^\S+ | +$", "", msgd.archive().decode(), flags=re.MULTILINE)
        shown = re.search(r"^127.0.0.1:40312 hello\n.*?(?=\.Ed)", page("msgd-protocol.7"), FULL)
        assert shown
        assert archived.replace(origin, "127.0.0.1:40312") == shown[0]


@pytest.mark.parametrize("name", ["README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY"])
def test_every_link_leads_somewhere(name: str) -> None:
    text = (ROOT / f"{name}.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_the_readme_shows_the_library(msgd: Daemon) -> None:
    examples = [text.replace("6743", str(msgd.port)) for text in code("python")]
    example = next(text for text in examples if ">>>" in text)
    test = doctest.DocTestParser().get_doctest(example, {}, "README", None, 0)
    found: list[str] = []
    assert doctest.DocTestRunner().run(test, out=found.append).failed == 0, "".join(found)
    assert test.examples
    assert msgd.texts() == ["hello from Python", "one", "two\nlines", "a bell: \\x07"]


def test_the_readme_shows_a_session(msgd: Daemon) -> None:
    example = next(text for text in code("python") if "session=" in text)
    program = example.replace("6743", str(msgd.port)).replace("        ...", "        pass")
    for lines in (["one", "two"], ["one", "two", "three"]):
        exec("from msgd.client import Client\n" + program, {"lines": lines})
    assert msgd.texts() == ["one", "two", "three"]


def test_the_readme_shows_the_handler(msgd: Daemon) -> None:
    example = next(text for text in code("python") if "MsgdHandler" in text)
    done = subprocess.run(
        [sys.executable, "-c", example.replace("6743", str(msgd.port))],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert msgd.texts() == ["WARNING backup: only 4% left on /srv"]


PROMPT = re.compile(r"^(\$ |msgd> |Password: )(.*)$", re.MULTILINE)


def test_the_first_session_goes_as_the_readme_tells(start: Start, tmp_path: Path) -> None:
    if shutil.which("nc") is None:
        pytest.skip("nc is not installed")
    transcript = next(code("console"))
    msgd = start("listen: 127.0.0.1\n")
    home = tmp_path / "home" / ".local" / "state"
    home.mkdir(parents=True)
    (home / "msgd").symlink_to(msgd.log_directory)
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile"],
        env={
            "HOME": str(tmp_path / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "PS1": "$ ",
            "MSGCTL_PORT": str(msgd.port),
            **{name: os.environ[name] for name in os.environ if name.startswith("COV")},
        },
        encoding="utf-8",
        timeout=SECONDS,
        dimensions=(50, 250),
    )
    seen = ""
    for prompt, typed in PROMPT.findall(transcript):
        shell.expect_exact(prompt)
        seen += str(shell.before) + prompt
        if typed == "^D":
            shell.sendeof()
            seen += "^D"
        else:
            shell.sendline(
                "guess" if prompt == "Password: " else typed.replace("6743", str(msgd.port))
            )
    shell.expect_exact("\r\n$ ")
    seen += str(shell.before) + "\n"
    shell.close()
    assert normal(seen.replace(str(msgd.port), "6743")) == normal(transcript)


def normal(session: str) -> str:
    """Without what differs from time to time: stamps and ports, and how a terminal ends lines."""
    session = re.sub(r"\d{4}-\d\d-\d\dT\S+ 127\.0\.0\.1:\d+", "STAMP ORIGIN", session)
    return session.replace("\r", "")
