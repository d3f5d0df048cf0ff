"""The service: the one place that builds objects of several rooms, and runs them side by side.

Start-up reads as a list: store, destinations, registry, modem, radio, uplinks, control socket, page. Any
loop that fails stops the program, and the service manager starts it again; a lost modem or broker is
not a failure but a state, handled where it happens.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from concentrator.clock import Clock, SystemClock
from concentrator.collection.collector import Collector
from concentrator.collection.keyring import Keyring
from concentrator.collection.radio_listener import RadioListener
from concentrator.config import Config, ConfigError
from concentrator.control import ControlServer
from concentrator.links.plc_link import PlcLink
from concentrator.links.plc_networks import make_network
from concentrator.logs import set_up_logging
from concentrator.notify import Notifier
from concentrator.orders import Order
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.uplink.messages import Topics, timestamp
from concentrator.uplink.mqtt import MqttUplink
from concentrator.uplink.push import PushUplink

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_RETENTION_INTERVAL_S = 3600.0
_PAGE_STOP_TIMEOUT_S = 3.0
_PAGE_RESTART_DELAY_S = 2.0
