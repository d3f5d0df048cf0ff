"""What a board is, as data: its serial ports, the pins that reset a modem or radio, and its lights.

A board is one short file that fills these classes in (`raspberry_pi.py`, `simulated.py`). MicroPython
subset: plain classes, no typing.
"""


class SerialPort:
    """A serial port by its role: "plc" (the PLC modem) or "radio" (the wireless M-Bus module), ..."""

    __slots__ = ("path", "role")

    def __init__(self, role: str, path: str) -> None:
        self.role = role
        self.path = path  # of the device file, or the port's name on a microcontroller


class ResetLine:
    """A pin that resets what hangs on the serial port of the same role."""

    __slots__ = ("active_low", "pin", "pulse_s", "role", "settle_s")

    def __init__(self, role: str, pin: int, active_low: bool, pulse_s: float, settle_s: float) -> None:
        self.role = role
        self.pin = pin  # number on the board's header or chip, as the board's back end counts
        self.active_low = active_low  # the line is pulled low to reset
        self.pulse_s = pulse_s  # how long it is held
        self.settle_s = settle_s  # how long the device then needs before it listens


class Led:
    """A light by its meaning: "alive", "plc", "uplink", ..."""

    __slots__ = ("active_low", "name", "pin")

    def __init__(self, name: str, pin: int, active_low: bool) -> None:
        self.name = name
        self.pin = pin
        self.active_low = active_low


class Board:
    """One board model. `chip` names the GPIO controller for back ends that have several."""

    __slots__ = ("chip", "leds", "name", "resets", "serial_ports")

    def __init__(
        self,
        name: str,
        chip: str,
        serial_ports: tuple[SerialPort, ...],
        resets: tuple[ResetLine, ...] = (),
        leds: tuple[Led, ...] = (),
    ) -> None:
        self.name = name
        self.chip = chip
        self.serial_ports = serial_ports
        self.resets = resets
        self.leds = leds

    def serial_port(self, role: str) -> SerialPort | None:
        """The port of a role, or None when the board has none."""
        for port in self.serial_ports:
            if port.role == role:
                return port
        return None

    def reset_line(self, role: str) -> ResetLine | None:
        """The reset line of a role, or None when there is none."""
        for line in self.resets:
            if line.role == role:
                return line
        return None

    def led(self, name: str) -> Led | None:
        """A light by its meaning, or None."""
        for led in self.leds:
            if led.name == name:
                return led
        return None
