"""What only an S-FSK network tells, beside the events of plc/network.py."""

from plc.network import Event


class AlarmReported(Event):
    """A server's report of itself held an alarm descriptor; clear_alarm() clears it."""

    __slots__ = ("alarm", "eui")

    def __init__(self, eui: bytes, alarm: int) -> None:
        self.eui = eui  # its system title
        self.alarm = alarm
