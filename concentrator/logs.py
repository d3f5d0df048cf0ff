"""Logging: one line an event, `event key=value ...`, to standard error; journald adds the time."""

from __future__ import annotations

import logging
import os
import sys

import structlog


def set_up_logging(level: str) -> None:
    """Send events of `level` (debug, info, warning, error) and above to standard error."""
    under_journald = "JOURNAL_STREAM" in os.environ
    processors: list[structlog.typing.Processor] = [structlog.contextvars.merge_contextvars]
    if not under_journald:
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    processors += [
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="level=%(levelname)s event=%(message)s"
    )
