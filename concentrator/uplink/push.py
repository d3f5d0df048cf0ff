"""The DLMS push uplink: every batch as a data-notification over the TCP WRAPPER (IEC 62056-5-3, -4-7).

The body is a structure of what a push object list would name (Blue Book, class 40): the meter's identity,
the logical name of the profile, its capture objects, its buffer, and scaler and unit of each column. A
head-end needs nothing else to understand it.

Confirmed notifications (service class 1) are answered by data-notification-confirm, which names the long
invoke id: only then is a batch acknowledged. For a head-end that never confirms, TCP's own acknowledgement
of every octet has to do; that says that its host has the data, not that it stored it.
"""

from __future__ import annotations

import structlog

from concentrator.errors import RemoteError
from concentrator.obis import Obis

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CONNECT_TIMEOUT_S = 20.0
_ROWS_PER_NOTIFICATION = 250
# long-invoke-id-and-priority: bits 0..23 invoke id, bit 30 service class (1 = confirmed), bit 31 priority.
_INVOKE_ID_MASK = 0x00FF_FFFF
_CONFIRMED = 0x4000_0000
_DATA_NOTIFICATION = 0x0F
_DATA_NOTIFICATION_CONFIRM = 0x10
_CLOCK = Obis(0, 0, 1, 0, 0)
_STATUS = Obis(0, 0, 96, 10, 1)


class PushLostError(RemoteError):
    """The connection to the head-end ended, or it does not confirm."""
