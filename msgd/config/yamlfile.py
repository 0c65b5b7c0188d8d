"""A configuration file: YAML in, checked values out, each error with its line.

A file is composed to YAML nodes and no further: a node has its line, so that each error can say
``FILE:LINE: key: what is wrong``, and its text, so that ``no``, ``1:30`` or ``010`` are what the
administrator typed and not what YAML 1.1 makes of them. No value may be nested, so an alias
costs nothing however often it stands there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgd.config.values import Kind, show

if TYPE_CHECKING:
    import yaml

    Node = yaml.ScalarNode | yaml.SequenceNode | yaml.MappingNode

_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")
}


class ConfigError(Exception):
    """The configuration is wrong: str() is ``FILE:LINE: key: what is wrong``, in one line."""


class Option(NamedTuple):
    """One row of the table."""

    name: str  # with its section: limits.clients
    default: Any
    kind: Kind
    empty: bool = False  # a key without a value means the default
    secret: bool = False  # never shown


def as_yaml(options: Iterable[Option], config: object) -> str:
    """A configuration as YAML; of secrets only that they are set.

    ``config`` has an attribute for each option, in tuples of their own for sections.
    """
    lines = []
    section = ""
    for option in options:
        above, _, key = option.name.rpartition(".")
        if above != section:
            section = above
            lines.append(f"{section}:")
        indent = "  " if above else ""
        value = attrgetter(option.name)(config)
        if option.secret and value is not None:
            lines.append(f"{indent}# {key} is set, and not shown")
        else:
            lines.append(f"{indent}{key}: {show(value)}")
    return "\n".join(lines) + "\n"


def read(path: str, *, again: bool = False) -> str:
    """The file's text; raises ConfigError.

    The first time it may be anything, such as a pipe or /dev/null. Again it must be a file with
    something in it: what is lost must not open what was closed.
    """
    try:
        with open(path, "rb", opener=_open_at_once if again else None) as file:
            if again and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: is not a regular file")
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if again and not data.strip():
        raise ConfigError(f"{path}: is empty")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8: byte {data[error.start]:#04x}") from None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for a writer


class ConfigFile:
    """One YAML file, held against a table of options."""

    def __init__(self, path: str, options: Iterable[Option], *, again: bool = False) -> None:
        """Read the file, as `read` does; raises ConfigError."""
        self._path, self._text = path, read(path, again=again)
        self._options = {option.name: option for option in options}
        self._lines: dict[str, int] = {}  # where each key was first seen
        self._sections = {name.rpartition(".")[0] for name in self._options} - {""}

    def values(self) -> dict[str, Any]:
        """Option name -> value, for the keys that the file has. Raises ConfigError."""
        values: dict[str, Any] = {}
        for name, key, node in self._pairs("", self._compose()):
            option = self._options.get(name)
            if option is None:
                raise self._error(key, f"{_shown(name)}: unknown key{self._nearest(name)}")
            values[name] = self._value(option, node)
        return values

    def has(self, name: str) -> bool:
        """Whether the file has this key."""
        return name in self._lines

    def where(self, words: str) -> str:
        """``FILE:LINE: `` for an error that begins with ``key: ``, as far as that is known."""
        line = self._lines.get(words.partition(":")[0])
        return f"{self._path}:{line}: " if line else f"{self._path}: "

    def error(self, name: str, words: str) -> ConfigError:
        """What is wrong about a key that `values` has found, in view of the others."""
        return ConfigError(f"{self._path}:{self._lines[name]}: {name}: {words}")

    def _compose(self) -> Node | None:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            return cast("Node | None", yaml.compose(self._text, Loader=loader))
        except yaml.reader.ReaderError as error:
            line = self._text.encode().count(b"\n", 0, int(error.position)) + 1
            words = f"a character that YAML does not allow: {int(error.character):#04x}"
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            words = ", ".join(part for part in (error.context, error.problem) if part)
            if words.startswith("mapping values"):  # such as in: listen: ::
                words += " (a value with colons needs quotes)"
        raise ConfigError(f"{self._path}:{line}: is not YAML: {words}")

    def _pairs(self, section: str, node: Node | None) -> Iterator[tuple[str, Node, Node]]:
        """Each key's full name, its node, and its value's node; sections are walked into."""
        if node is None or _is_null(node):  # such as a section whose keys are all commented out
            return
        if node.id != "mapping":
            where = f"{section}: " if section else ""
            raise self._error(node, f"{where}must be keys with values, such as port: 6743")
        for key, value in node.value:
            if key.id != "scalar":
                raise self._error(key, "a key must be a word")
            name = f"{section}.{key.value}" if section else str(key.value)
            if name in self._lines:
                line = self._lines[name]
                raise self._error(key, f"{_shown(name)}: is already given in line {line}")
            self._lines[name] = _line(key)
            if name in self._sections:
                yield from self._pairs(name, value)
            else:
                yield name, key, value

    def _value(self, option: Option, node: Node) -> object:
        if _is_null(node) and option.empty:
            return option.default
        if node.id != "sequence" or not option.kind.many:
            found = self._scalar(option, node)
            return (found,) if option.kind.many else found
        found_all: dict[object, None] = {}
        for item in node.value:
            found = self._scalar(option, item)
            if found in found_all:
                raise self._error(item, f"{option.name}: {show(found)} is given twice")
            found_all[found] = None
        if not found_all and option.default:
            raise self._error(node, f"{option.name}: must have at least one value")
        return tuple(found_all)

    def _scalar(self, option: Option, node: Node) -> object:
        try:
            if not isinstance(node.value, str):
                raise ValueError(option.kind.wrong("a list" if node.id == "sequence" else "keys"))
            if node.tag not in _TAGS:
                raise ValueError(option.kind.wrong(f"a value with the tag {show(node.tag)}"))
            if _is_null(node):
                raise ValueError(option.kind.wrong("nothing"))
            if option.kind.number and getattr(node, "style", None) in ('"', "'"):
                raise ValueError(option.kind.wrong("a text: leave the quotes out"))
            return option.kind.parse(node.value)
        except ValueError as error:
            raise self._error(node, f"{option.name}: {error}") from None

    def _nearest(self, name: str) -> str:
        """The words that name the known key most like this one, in whatever section that stands."""
        import difflib

        known_names = [*self._sections, *self._options]
        keys = {known.rpartition(".")[2]: known for known in known_names}
        near = difflib.get_close_matches(name.rpartition(".")[2].lower(), keys, 1)
        return f"; did you mean {keys[near[0]]}?" if near else ""

    def _error(self, node: Node, words: str) -> ConfigError:
        return ConfigError(f"{self._path}:{_line(node)}: {words}")


def _line(node: Node) -> int:
    return node.start_mark.line + 1


def _is_null(node: Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _shown(name: str) -> str:
    """A key that anybody may have written, short, in one line, harmless to a terminal."""
    return name if name.isprintable() and len(name) <= 60 else show(name[:60])
