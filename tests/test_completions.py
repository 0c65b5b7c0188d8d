"""The completion scripts, run by the shells that they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pexpect
import pytest

from msgd.ctl.commands import VERBS as NAMES
from msgd.ctl.commands import msgctl

SCRIPTS = Path(__file__).parent.parent / "packaging" / "completions"
VERBS = sorted(NAMES)


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def command_of(verb: str) -> click.Command:
    found = msgctl.get_command(click.Context(msgctl), verb)
    assert found
    return found


def options(command: click.Command) -> set[str]:
    """Every option of a command as it is typed."""
    parent = msgctl.make_context("msgctl", [VERBS[0]], resilient_parsing=True)
    context = parent if command is msgctl else click.Context(command, parent=parent)
    parameters = command.get_params(context)
    return {
        name for option in parameters if isinstance(option, click.Option) for name in option.opts
    }


def bash(words: str, cwd: Path | None = None) -> set[str]:
    """What bash offers behind these words; the last one is being typed."""
    script = f"""
        source {SCRIPTS / "msgctl.bash"}
        COMP_WORDS=({words}) COMP_CWORD=$(({len(words.split())} - 1))
        [[ ${{COMP_WORDS[-1]}} == "''" ]] && COMP_WORDS[-1]=''
        _msgctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=cwd, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@needs("bash")
def test_bash_offers_verbs_and_common_options_first() -> None:
    assert bash("msgctl ''") == {*VERBS, *options(msgctl)}
    assert bash("msgctl te") == {"terminate"}


@needs("bash")
@pytest.mark.parametrize("verb", VERBS)
def test_bash_offers_every_option_of_a_verb(verb: str) -> None:
    assert bash(f"msgctl {verb} -") == options(command_of(verb))
    assert bash(f"msgctl -H there --port = 1 {verb} -") == options(command_of(verb))


@needs("bash")
def test_bash_offers_files_for_file_and_nothing_for_words(tmp_path: Path) -> None:
    (tmp_path / "app.log").touch()
    assert bash("msgctl send --file ap", tmp_path) == {"app.log"}
    assert bash("msgctl send --file = ap", tmp_path) == {"app.log"}
    assert bash("msgctl send -f x -f ap", tmp_path) == {"app.log"}
    assert bash("msgctl send --ca ap", tmp_path) == {"app.log"}
    assert bash("msgctl send -fap", tmp_path) == {"-fapp.log"}
    assert bash("msgctl send -qfap", tmp_path) == {"-qfapp.log"}
    assert bash("msgctl -H/dev/nul", tmp_path) == {"-H/dev/null"}
    assert bash("msgctl ping -fap", tmp_path) == set()
    assert bash("msgctl send -- -", tmp_path) == set()
    assert bash("msgctl send -H there -- -- -", tmp_path) == set()
    assert bash("msgctl send ap", tmp_path) == set()
    assert bash("msgctl send --retry ''", tmp_path) == set()


def fish(line: str, cwd: Path | None = None) -> set[str]:
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {SCRIPTS / 'msgctl.fish'}; complete -C '{line}'"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


def long_and_short(command: click.Command) -> tuple[set[str], set[str]]:
    names = options(command)
    return {name for name in names if name.startswith("--")}, names


@needs("fish")
def test_fish_offers_verbs() -> None:
    assert fish("msgctl ") == set(VERBS)


@needs("fish")
@pytest.mark.parametrize("verb", VERBS)
def test_fish_offers_every_option_of_a_verb(verb: str) -> None:
    long, every = long_and_short(command_of(verb))
    offered = {offer.removesuffix("=") for offer in fish(f"msgctl {verb} -")}
    assert {offer for offer in offered if offer.startswith("--")} == long
    assert every <= offered


@needs("fish")
def test_fish_offers_files_for_file_only(tmp_path: Path) -> None:
    (tmp_path / "app.log").touch()
    assert fish("msgctl send --file ap", tmp_path) == {"app.log"}
    assert fish("msgctl send ap", tmp_path) == set()


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What zsh notes of all its completions: to make it takes longer than all else."""
    return tmp_path_factory.mktemp("zsh") / "dump"


def zsh(line: str, cwd: Path, dump: Path) -> str:
    """What zsh shows below the line when it is asked what could follow."""
    shell = pexpect.spawn("zsh", ["-f", "-i"], cwd=str(cwd), encoding="utf-8", dimensions=(60, 200))
    shell.sendline(
        f"PS1='rea''dy> '; fpath=({SCRIPTS} $fpath); LISTMAX=9999; autoload -U compinit;"
        f" compinit -u -d {dump}; bindkey '^T' list-choices"
    )
    shell.expect(r"ready> .*\x1b\[\?2004h")  # the line editor is at work
    shell.send(line + "\x14")
    shell.send("\x15print do''ne\r")
    shell.expect("done\r")
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", " ", shell.before or "")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close()
    return shown


@needs("zsh")
def test_zsh_offers_verbs(tmp_path: Path, dump: Path) -> None:
    shown = zsh("msgctl ", tmp_path, dump)
    assert all(f"{verb} " in shown for verb in VERBS)


@needs("zsh")
@pytest.mark.parametrize("verb", VERBS)
def test_zsh_offers_every_option_of_a_verb(verb: str, tmp_path: Path, dump: Path) -> None:
    words = set(zsh(f"msgctl -H there {verb} -", tmp_path, dump).split())
    assert options(command_of(verb)) <= words


@needs("zsh")
@pytest.mark.parametrize("verb", VERBS)
def test_zsh_offers_options_behind_common_ones(verb: str, tmp_path: Path, dump: Path) -> None:
    words = set(zsh(f"msgctl {verb} -H localhost --port 1 --tls --", tmp_path, dump).split())
    own = {name for name in options(command_of(verb)) - options(msgctl) if name.startswith("--")}
    assert own <= words
    assert "app.txt" not in zsh(f"msgctl {verb} -- -", tmp_path, dump)


@needs("zsh")
def test_zsh_offers_files_for_file_only(tmp_path: Path, dump: Path) -> None:
    (tmp_path / "app.log").touch()
    (tmp_path / "app.txt").touch()
    assert "app.txt" in zsh("msgctl send --file ap", tmp_path, dump)
    assert "app.txt" not in zsh("msgctl send ap", tmp_path, dump)
