"""How a node logs: JSON lines for machines, coloured text for a person at a terminal.

Event names are stable, facts are typed fields. Keys, payloads and personal data are never logged;
no call in this project hands them to a logger.
"""

import logging
import sys
from typing import assert_never

import structlog

from node.config import LogSection

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def configure(section: LogSection) -> None:
    """Set up structlog for this process; everything goes to standard error."""
    match section.format:
        case "json":
            as_json = True
        case "console":
            as_json = False
        case "auto":
            as_json = not sys.stderr.isatty()
        case _:
            assert_never(section.format)
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if as_json else structlog.dev.set_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            _LEVELS.get(section.level, logging.ERROR)
        ),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
