"""What the commands msgd and msgd-relay have in common: their arguments, and how they end."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from msgd.errors import Fatal

OK, FAILED, USAGE, BAD_CONFIG = 0, 1, 2, 78  # the last is EX_CONFIG of sysexits.h

_HELP_WIDTH = 90
_logger = logging.getLogger("msgd")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with an argument."""

    def __init__(self, **options: Any) -> None:
        # Given a width, argparse does not import all of shutil to find the terminal's.
        formatter = partial(argparse.HelpFormatter, width=_HELP_WIDTH)
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def exit_status(
    run: Callable[[], None], misconfigured: tuple[type[Exception], ...], *, verbose: bool
) -> int:
    """Run this to its end; whatever goes wrong is one line of the log, and the status is returned.

    ``misconfigured`` are the errors that must be mended before a start makes sense.
    """
    try:
        run()
    except misconfigured as error:
        _logger.error("%s", error)
        return BAD_CONFIG
    except Fatal as error:
        _logger.error("%s", error, exc_info=verbose)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except Exception as error:
        _logger.error("%s: %s", type(error).__name__, error, exc_info=verbose)
        return FAILED
    return OK
