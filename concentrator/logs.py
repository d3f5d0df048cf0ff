"""Logging: one line an event, `event key=value ...`, to standard error; journald adds the time."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from datetime import UTC, datetime

import structlog

# The newest lines, for the support bundle.
_MOST_LINES, _LONGEST_LINE = 4000, 400
_lines: deque[str] = deque(maxlen=_MOST_LINES)


def recent_lines() -> list[str]:
    """The newest lines of this process's log, oldest first, each with its time."""
    return list(_lines)


def _remember(_logger: object, _level: str, line: structlog.typing.EventDict) -> str:
    # After the renderer it is a line.
    text = str(line)
    _lines.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text[:_LONGEST_LINE]}")
    return text


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
        _remember,
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
