"""The configuration: what is read, what is refused and in which words, and what documents it."""

from __future__ import annotations

import os
import re
import socket
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from msgd.config import options as msgd_config
from msgd.config.options import OPTIONS, Config, ConfigError, Source, Tls, dump, load
from msgd.config.values import KeepFree, Network
from tests.conftest import PASSWORD_HASH

SAMPLE = Path(__file__).parent.parent / "etc" / "msgd.yaml"
ADDRESS = "must be a numeric IPv4 or IPv6 address (no host name), an absolute path, or a list, not "
FILE = "must be an absolute path, or none, not "
NETWORK = "must be a network such as 10.0.0.0/8 or fd00::/8, or a list, not "
PORT = "must be a whole number from 0 to 65535, not "
SECONDS = "must be a number from 0 to 1000000, not "
ABOVE_ZERO = "must be a number above 0, at most 1000000, not "


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables that the configuration looks at; root's default directory."""
    for name in ("LOGS_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "msgd.yaml"


def network(text: str) -> Network:
    address, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return Network(socket.inet_pton(family, address), int(length or 32))


def read(path: Path, text: str | bytes) -> Config:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(str(path))


def defaults(path: Path) -> Config:
    return read(path, "")


# What is read ------------------------------------------------------------------------------


def test_defaults_are_those_of_the_documentation(path: Path) -> None:
    assert dump(defaults(path)) == (
        'listen: ["127.0.0.1", "::1"]\n'
        "port: 6743\n"
        "log_directory: /var/log/msgd\n"
        "password_hash: none\n"
        "sync: always\n"
        "time_zone: local\n"
        "keep_days: 0\n"
        "compress: none\n"
        "metrics_file: none\n"
        "allow: []\n"
        "terminate_from: []\n"
        "proxy_from: []\n"
        "tls:\n"
        "  certificate: none\n"
        "  key: none\n"
        "  required: no\n"
        "  client_ca: none\n"
        "  clients: []\n"
        "limits:\n"
        "  clients: 4096\n"
        "  clients_per_address: 0\n"
        "  message_bytes: 65536\n"
        "  handshake_seconds: 10\n"
        "  idle_seconds: 0\n"
        "  bare_quiet_ms: 50\n"
        "  sessions: 10000\n"
        "  keep_free: 1%\n"
    )
    assert defaults(path).listen_is_default


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "null\n", "~", "{}", "limits:\n", "limits: {}\n", "\ufeff"]
)
def test_nothing_in_the_file_means_the_defaults(path: Path, text: str) -> None:
    assert read(path, text) == defaults(path)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("listen: 0.0.0.0", "listen", ("0.0.0.0",)),
        ("listen: '::'", "listen", ("::",)),
        ("listen: ::1", "listen", ("::1",)),
        ("listen: [10.0.0.1, 'fd00::0001']", "listen", ("10.0.0.1", "fd00::1")),
        ("listen:\n  - fe80::1%eth0\n  - 127.0.0.1", "listen", ("fe80::1%eth0", "127.0.0.1")),
        ("listen: [/run//msgd/msgd.sock, '::']", "listen", ("/run/msgd/msgd.sock", "::")),
        (f"listen: /{'x' * 106}", "listen", ("/" + "x" * 106,)),
        ("port: 0", "port", 0),
        ("port: 65535", "port", 65535),
        ("log_directory: /srv/a b/../log/", "log_directory", "/srv/log"),
        ("log_directory: '/srv/ä'", "log_directory", "/srv/ä"),
        (f"password_hash: {PASSWORD_HASH}", "password_hash", PASSWORD_HASH),
        (f"password_hash: '{PASSWORD_HASH}'", "password_hash", PASSWORD_HASH),
        ("password_hash:", "password_hash", None),
        ("password_hash: none", "password_hash", None),
        ("sync: second", "sync", "second"),
        ("sync: never", "sync", "never"),
        ('sync: "Never"', "sync", "never"),
        ("time_zone: UTC", "time_zone", "utc"),
        ("keep_days: 36500", "keep_days", 36500),
        ("compress: gzip", "compress", "gzip"),
        ("compress: none", "compress", "none"),
        ("compress: no", "compress", "none"),
        ("compress: Off", "compress", "none"),
        ("compress: false", "compress", "none"),
        ("compress: ~", "compress", "none"),
        ("allow: []", "allow", ()),
        ("allow: 192.168.1.5", "allow", (network("192.168.1.5/32"),)),
        (
            "allow: [10.0.0.0/8, 'fd00::/8']",
            "allow",
            (network("10.0.0.0/8"), network("fd00::/8")),
        ),
        ("allow: 0.0.0.0/0", "allow", (network("0.0.0.0/0"),)),
        ("allow: '::/0'", "allow", (network("::/0"),)),
        ("terminate_from: [127.0.0.0/8]", "terminate_from", (network("127.0.0.0/8"),)),
        ("proxy_from: 10.0.0.1", "proxy_from", (network("10.0.0.1"),)),
        ("metrics_file: /srv/msgd.prom", "metrics_file", "/srv/msgd.prom"),
        ("metrics_file: none", "metrics_file", None),
        ("tls: {certificate: /a.pem}", "tls", Tls("/a.pem", "/a.pem", "no", None, ())),
        ("tls: {certificate: /a.pem, key: /b.pem}", "tls.key", "/b.pem"),
        ("tls: {certificate: /a.pem, required: remote}", "tls.required", "remote"),
        ("tls: {certificate: /a.pem, required: On}", "tls.required", "yes"),
        ("tls: {required: off, client_ca: none}", "tls.required", "no"),
        (
            "tls: {certificate: /a, client_ca: /c, clients: [web-1, b.example_]}",
            "tls.clients",
            ("web-1", "b.example_"),
        ),
        ("limits: {clients_per_address: 8}", "limits.clients_per_address", 8),
        ("limits: {sessions: 1}", "limits.sessions", 1),
        ("limits: {keep_free: 0}", "limits.keep_free", KeepFree()),
        ("limits: {keep_free: 1073741824}", "limits.keep_free", KeepFree(bytes=1 << 30)),
        ("limits: {keep_free: 0.25%}", "limits.keep_free", KeepFree(percent=0.25)),
        ("limits: {clients: 1}", "limits.clients", 1),
        ("limits.clients: 1", "limits.clients", 1),
        ("limits: {message_bytes: 1048576}", "limits.message_bytes", 1048576),
        ("limits: {handshake_seconds: 0.5}", "limits.handshake_seconds", 0.5),
        ("limits: {idle_seconds: 3600}", "limits.idle_seconds", 3600.0),
        ("limits: {bare_quiet_ms: 2.5e+1}", "limits.bare_quiet_ms", 25.0),
        ("limits: {bare_quiet_ms: .5}", "limits.bare_quiet_ms", 0.5),
    ],
)
def test_a_value(path: Path, line: str, name: str, value: object) -> None:
    assert attrgetter(name)(read(path, line)) == value


@pytest.mark.parametrize(
    ("text", "size", "free"), [("0", 1000, 0), ("5", 1000, 5), ("1%", 1000, 10), ("0%", 1000, 0)]
)
def test_what_stays_free(path: Path, text: str, size: int, free: int) -> None:
    assert read(path, f"limits.keep_free: {text}").limits.keep_free.of(size) == free


def test_an_alias_is_the_value_that_it_names(path: Path) -> None:
    assert read(path, "listen: &here 127.0.0.2\nallow: [*here]").allow == (network("127.0.0.2/32"),)


def test_without_a_home_directory_the_default_is_that_of_root(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for an unknown user
    assert defaults(path).log_directory == "/var/log/msgd"


def test_addresses_are_the_default_only_when_nobody_wrote_them(path: Path) -> None:
    found = read(path, 'listen: ["127.0.0.1", "::1"]')
    assert found.listen == defaults(path).listen
    assert not found.listen_is_default


def test_the_command_line_goes_before_the_file(path: Path) -> None:
    path.write_text("port: 1\nlog_directory: /srv/log\n")
    found = load(str(path), port=0, log_directory="/srv/other")
    assert (found.port, found.log_directory) == (0, "/srv/other")


def test_without_a_path_the_usual_file_is_read_where_it_exists(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msgd_config, "DEFAULT_PATH", str(path))
    assert load(None).port == 6743
    path.write_text("port: 7\n")
    assert load(None).port == 7


@pytest.mark.parametrize(
    ("variables", "root", "directory"),
    [
        ({}, True, "/var/log/msgd"),
        ({}, False, "/home/me/.local/state/msgd"),
        ({"XDG_STATE_HOME": "/state"}, False, "/state/msgd"),
        ({"XDG_STATE_HOME": "relative"}, False, "/home/me/.local/state/msgd"),
        ({"XDG_STATE_HOME": "/state"}, True, "/var/log/msgd"),
        ({"LOGS_DIRECTORY": "/logs/one"}, False, "/logs/one"),
        ({"LOGS_DIRECTORY": "/logs/one:/logs/two"}, True, "/logs/one"),
        ({"LOGS_DIRECTORY": ""}, True, "/var/log/msgd"),
        ({"LOGS_DIRECTORY": "logs"}, True, str(Path("logs").absolute())),
    ],
)
def test_default_log_directory(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    root: bool,
    directory: str,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert defaults(path).log_directory == directory


@pytest.mark.parametrize(
    ("given", "sockets"),
    [
        ("/run/msgd", ["/run/msgd/msgd.sock"]),
        ("/run/msgd:/run/other", ["/run/msgd/msgd.sock"]),
        ("", []),
        ("run", []),
    ],
)
def test_under_systemd_there_is_a_local_socket_by_default(
    path: Path, monkeypatch: pytest.MonkeyPatch, given: str, sockets: list[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", given)
    config = defaults(path)
    assert config.listen == ("127.0.0.1", "::1", *sockets)
    assert config.listen_is_default
    assert read(path, "listen: 127.0.0.1\n").listen == ("127.0.0.1",)


# What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # keys
        ("prot: 1", "1: prot: unknown key; did you mean port?"),
        ("PORT: 1", "1: PORT: unknown key; did you mean port?"),
        ("port: 1\n\nlog_dir: /x", "3: log_dir: unknown key; did you mean log_directory?"),
        ("clients: 3", "1: clients: unknown key; did you mean limits.clients?"),
        ("limits:\n  port: 3", "2: limits.port: unknown key; did you mean port?"),
        ("limits: {client: 3}", "1: limits.client: unknown key; did you mean limits.clients?"),
        ("limit: {clients: 3}", "1: limit: unknown key; did you mean limits?"),
        ("zzz: 3", "1: zzz: unknown key"),
        ('"a\\nb": 3', '1: "a\\nb": unknown key'),
        ("<<: {port: 3}", "1: <<: unknown key"),
        ("? [1]\n: 2", "1: a key must be a word"),
        ("port: 1\nsync: never\nport: 1", "3: port: is already given in line 1"),
        ("limits: {clients: 1,\n  clients: 2}", "2: limits.clients: is already given in line 1"),
        (
            "limits: {clients: 1}\nlimits.clients: 2",
            "2: limits.clients: is already given in line 1",
        ),
        ("limits: {clients: 1}\nlimits: {}", "2: limits: is already given in line 1"),
        ("- port", "1: must be keys with values, such as port: 6743"),
        ("6743", "1: must be keys with values, such as port: 6743"),
        ("limits: 3", "1: limits: must be keys with values, such as port: 6743"),
        # whole numbers
        ("port: 65536", f'1: port: {PORT}"65536"'),
        ("port: -1", f'1: port: {PORT}"-1"'),
        ("port: 1.5", f'1: port: {PORT}"1.5"'),
        ("port: yes", f'1: port: {PORT}"yes"'),
        ("port: true", f'1: port: {PORT}"true"'),
        ("port: 010", f'1: port: {PORT}"010"'),
        ("port: 0x10", f'1: port: {PORT}"0x10"'),
        ("port: 1:30", f'1: port: {PORT}"1:30"'),
        ("port: 1_000", f'1: port: {PORT}"1_000"'),
        ("port: ٣", f'1: port: {PORT}"٣"'),
        ('port: "6743"', f"1: port: {PORT}a text: leave the quotes out"),
        ("port:", f"1: port: {PORT}nothing"),
        ("port: [1]", f"1: port: {PORT}a list"),
        ("port: {a: 1}", f"1: port: {PORT}keys"),
        ("port: !secret x", f'1: port: {PORT}a value with the tag "!secret"'),
        ("keep_days: 36501", '1: keep_days: must be a whole number from 0 to 36500, not "36501"'),
        (
            "limits: {clients: 0}",
            '1: limits.clients: must be a whole number from 1 to 1000000, not "0"',
        ),
        # numbers
        ("limits: {idle_seconds: -1}", f'1: limits.idle_seconds: {SECONDS}"-1"'),
        ("limits: {idle_seconds: .inf}", f'1: limits.idle_seconds: {SECONDS}".inf"'),
        ("limits: {idle_seconds: .nan}", f'1: limits.idle_seconds: {SECONDS}".nan"'),
        ("limits: {idle_seconds: 1e999}", f'1: limits.idle_seconds: {SECONDS}"1e999"'),
        ("limits: {idle_seconds: 10s}", f'1: limits.idle_seconds: {SECONDS}"10s"'),
        (
            "limits: {bare_quiet_ms: '50'}",
            f"1: limits.bare_quiet_ms: {ABOVE_ZERO}a text: leave the quotes out",
        ),
        ("limits: {bare_quiet_ms: 0}", f'1: limits.bare_quiet_ms: {ABOVE_ZERO}"0"'),
        # A list whose items are all commented out must not let everybody in.
        ("allow:", f"1: allow: {NETWORK}nothing"),
        (
            "limits: {handshake_seconds: 0}",
            '1: limits.handshake_seconds: must be a number above 0, at most 1000000, not "0"',
        ),
        # words
        ("sync: no", '1: sync: must be always, second or never, not "no"'),
        ("sync:", "1: sync: must be always, second or never, not nothing"),
        ("time_zone: Europe/Berlin", '1: time_zone: must be local or utc, not "Europe/Berlin"'),
        ("compress: zstd", '1: compress: must be none or gzip, not "zstd"'),
        ("compress: true", '1: compress: must be none or gzip, not "true"'),
        # addresses and networks
        ("listen: localhost", f'1: listen: {ADDRESS}"localhost"'),
        ("listen: 127.1", f'1: listen: {ADDRESS}"127.1"'),
        ("listen: 127.0.0.1:6743", f'1: listen: {ADDRESS}"127.0.0.1:6743"'),
        ("listen: '[::1]'", f'1: listen: {ADDRESS}"[::1]"'),
        ("listen: 127.0.0.1%lo", f'1: listen: {ADDRESS}"127.0.0.1%lo"'),
        ("listen: 'fe80::1%'", f'1: listen: {ADDRESS}"fe80::1%"'),
        ('listen: "::1\\0"', f'1: listen: {ADDRESS}"::1\\u0000"'),
        ("listen:\n - 127.0.0.1\n - here", f'3: listen: {ADDRESS}"here"'),
        ("listen:\n - 127.0.0.1\n -", f"3: listen: {ADDRESS}nothing"),
        ("listen: ['::1', '0:0::1']", '1: listen: "::1" is given twice'),
        ("listen: []", "1: listen: must have at least one value"),
        ("listen: &a [*a]", f"1: listen: {ADDRESS}a list"),
        ("allow: example.org", f'1: allow: {NETWORK}"example.org"'),
        ("allow: [10.0.0.0/33]", f'1: allow: {NETWORK}"10.0.0.0/33"'),
        (
            "allow: 10.1.2.3/8",
            '1: allow: "10.1.2.3/8" has bits set behind its prefix; did you mean 10.0.0.0/8?',
        ),
        (
            "allow: 'fd00::1/8'",
            '1: allow: "fd00::1/8" has bits set behind its prefix; did you mean fd00::/8?',
        ),
        (
            "allow: '::ffff:10.0.0.0/104'",
            '1: allow: "::ffff:10.0.0.0/104" never matches; did you mean 10.0.0.0/8?',
        ),
        (
            "allow: 0.0.0.0",
            '1: allow: "0.0.0.0" never matches: no client has such an address;'
            " did you mean 0.0.0.0/0?",
        ),
        (
            "terminate_from: 224.0.0.0/4",
            '1: terminate_from: "224.0.0.0/4" never matches: no client has such an address',
        ),
        ("allow: 'fe80::1%eth0'", f'1: allow: {NETWORK}"fe80::1%eth0"'),
        ("allow: 10.0.0.0/", f'1: allow: {NETWORK}"10.0.0.0/"'),
        ("allow: 10.1", f'1: allow: {NETWORK}"10.1"'),
        ("allow: '10.0.0.0/٨'", f'1: allow: {NETWORK}"10.0.0.0/٨"'),
        ("terminate_from:", f"1: terminate_from: {NETWORK}nothing"),
        # sockets in the file system
        ("listen: '@msgd'", f'1: listen: {ADDRESS}"@msgd"'),
        ("listen: run/msgd.sock", f'1: listen: {ADDRESS}"run/msgd.sock"'),
        (f"listen: /{'x' * 107}", "1: listen: the path of a socket has up to 107 bytes"),
        # TLS: what does nothing without another key, and what is left empty
        ("tls: {key: /k}", "1: tls.key: needs tls.certificate too"),
        ("port: 1\ntls:\n  required: yes", "3: tls.required: needs tls.certificate too"),
        ("tls: {client_ca: /k}", "1: tls.client_ca: needs tls.certificate too"),
        ("tls: {certificate: /c, clients: a}", "1: tls.clients: needs tls.client_ca too"),
        ("tls:\n  client_ca:", f"2: tls.client_ca: {FILE}nothing"),
        ("tls: {certificate: c.pem}", f'1: tls.certificate: {FILE}"c.pem"'),
        (
            "tls: {required: maybe}",
            '1: tls.required: must be no, yes or remote, not "maybe"',
        ),
        (
            "tls: {clients: 'a b'}",
            '1: tls.clients: must be a name of letters, digits and . _ -, or a list, not "a b"',
        ),
        # limits
        *(
            (
                f"limits: {{keep_free: {wrong}}}",
                "1: limits.keep_free: must be bytes, or a percentage below 100%,"
                f' such as 1073741824 or 1%, not "{wrong}"',
            )
            for wrong in ("100%", "-1", "1G", "1.5")
        ),
        (
            "limits: {message_bytes: 1048577}",
            '1: limits.message_bytes: must be a whole number from 1 to 1048576, not "1048577"',
        ),
        # directories and passwords
        ("log_directory: logs", '1: log_directory: must be an absolute path, not "logs"'),
        ("log_directory: ~/logs", '1: log_directory: must be an absolute path, not "~/logs"'),
        ("log_directory: ''", '1: log_directory: must be an absolute path, not ""'),
        (
            'log_directory: "/a\\nb"',
            '1: log_directory: must be an absolute path, not "/a\\nb"',
        ),
        # YAML
        (
            "port: 1\nlisten: ::",
            "2: is not YAML: mapping values are not allowed in this context"
            " (a value with colons needs quotes)",
        ),
        (
            "port: 1\nlisten: [1",
            "3: is not YAML: while parsing a flow sequence, did not find expected ',' or ']'",
        ),
        ("port: *x", "1: is not YAML: found undefined alias"),
        ("ä: 1\n\0", "2: is not YAML: a character that YAML does not allow: 0x00"),
        (
            "port: 1\n---\nport: 2",
            "2: is not YAML: expected a single document in the stream, but found another document",
        ),
        (b"port: 1\n# \xff\n", "2: is not UTF-8: byte 0xff"),
    ],
)
def test_an_error(path: Path, text: str | bytes, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(path, text)
    assert str(raised.value) == f"{path}:{error}"


def test_a_long_value_is_shown_short(path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(path, "port: " + "9" * 5000)
    assert str(raised.value) == f'{path}:1: port: {PORT}"{"9" * 60}…"'


def test_a_bad_hash_is_refused_without_being_shown(path: Path) -> None:
    with pytest.raises(ConfigError, match=r":2: password_hash: .*msgd hash-password") as raised:
        read(path, "port: 1\npassword_hash: hunter2\n")
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory") as raised:
        load(str(path))
    assert str(raised.value).startswith(f"{path}: ")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(str(tmp_path))


# Read again ---------------------------------------------------------------------------------


@pytest.fixture
def source(path: Path) -> Source:
    path.write_text("allow: 10.0.0.0/8\n")
    source = Source(str(path))
    assert source.load().allow
    return source


def test_what_is_read_again_counts(path: Path, source: Source) -> None:
    path.write_text("allow: [10.0.0.0/8, 192.168.0.0/16]\n")
    assert len(source.load().allow) == 2
    path.write_text("# all may come now\n")
    assert source.load().allow == ()


@pytest.mark.parametrize("lost", ["gone", "empty", "blank", "pipe", "directory", "null"])
def test_what_is_lost_never_opens_a_door(path: Path, source: Source, lost: str) -> None:
    path.unlink()
    if lost == "pipe":
        os.mkfifo(path)
    elif lost == "directory":
        path.mkdir()
    elif lost == "null":
        path.symlink_to("/dev/null")
    elif lost != "gone":
        path.write_text("" if lost == "empty" else " \n\n")
    words = {
        "gone": "cannot be read: No such file or directory",
        "empty": "is empty",
        "blank": "is empty",
        "directory": "cannot be read: Is a directory",
    }.get(lost, "is not a regular file")
    with pytest.raises(ConfigError) as raised:
        source.load()
    assert str(raised.value) == f"{path}: {words}"


def test_the_usual_file_must_not_vanish_either(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msgd_config, "DEFAULT_PATH", str(path))
    source = Source(None)
    assert source.load().port == 6743
    path.write_text("port: 7\n")
    assert source.load().port == 7
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        source.load()


def test_the_first_time_it_may_be_a_pipe(path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"port: 7\n")
    os.close(writer)
    try:
        assert load(f"/dev/fd/{reader}").port == 7
    finally:
        os.close(reader)


# The password from systemd -----------------------------------------------------------------


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory / "password_hash"


def test_the_credential_is_the_hash(path: Path, credential: Path) -> None:
    assert read(path, "").password_hash is None
    credential.write_text(PASSWORD_HASH + "\n")
    assert read(path, "").password_hash == PASSWORD_HASH
    assert read(path, "password_hash:\n").password_hash == PASSWORD_HASH


def test_a_credential_and_a_key_are_an_error(path: Path, credential: Path) -> None:
    credential.write_text(PASSWORD_HASH)
    with pytest.raises(ConfigError) as raised:
        read(path, f"password_hash: {PASSWORD_HASH}\n")
    assert str(raised.value) == (
        f"{path}: password_hash: is also given as a systemd credential; keep one of them"
    )


@pytest.mark.parametrize("text", ["", "hunter2\n"], ids=["empty", "clear"])
def test_a_bad_credential(path: Path, credential: Path, text: str) -> None:
    credential.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read(path, "")
    assert str(raised.value).startswith(f"{credential}:1: password_hash: ")
    assert "hunter2" not in str(raised.value)


def test_the_key_of_tls_may_be_a_credential(path: Path, credential: Path) -> None:
    key = credential.with_name("tls_key")
    key.touch()
    assert read(path, "tls.certificate: /c.pem\n").tls.key == str(key)
    with pytest.raises(ConfigError) as raised:
        read(path, "tls: {certificate: /c.pem, key: /k.pem}\n")
    assert str(raised.value) == (
        f"{path}: tls.key: is also given as a systemd credential; keep one of them"
    )


# What documents it -------------------------------------------------------------------------


def test_the_sample_names_every_key_at_its_default(path: Path) -> None:
    sample = SAMPLE.read_text()
    assert load(str(SAMPLE)) == defaults(path)
    uncommented = re.sub(r"(?m)^( *)#(?=\w)", r"\1", sample)
    assert read(path, uncommented)._replace(listen_is_default=True) == defaults(path)
    assert _names(yaml.safe_load(uncommented)) == [option.name for option in OPTIONS]


def _names(tree: dict[str, object], above: str = "") -> list[str]:
    names: list[str] = []
    for key, value in tree.items():
        names += _names(value, f"{key}.") if isinstance(value, dict) else [above + key]
    return names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "listen: '::'\nlog_directory: '/a: b #c'\nallow: [10.0.0.0/8, 'fd00::/8']\n",
        "log_directory: '/\"ä\\\\'\nlimits: {bare_quiet_ms: 0.001, message_bytes: 1000000}\n",
        "password_hash: none\nlisten: [/run/a, '::1']\nlimits.keep_free: 0.5%\n",
        "tls: {certificate: /c, client_ca: /a, clients: [x, y.z], required: yes}\n",
        "terminate_from: 127.0.0.0/8\nmetrics_file: /m\nlimits.keep_free: 10000\n",
        "sync: never\ntime_zone: utc\nkeep_days: 30\ncompress: gzip\n",
    ],
)
def test_what_is_shown_can_be_read_again(path: Path, text: str) -> None:
    config = read(path, text)
    assert read(path, dump(config))._replace(listen_is_default=config.listen_is_default) == config


def test_the_hash_is_not_shown(path: Path) -> None:
    shown = dump(read(path, f"password_hash: {PASSWORD_HASH}\n"))
    assert "# password_hash is set, and not shown\n" in shown
    assert "scrypt" not in shown
