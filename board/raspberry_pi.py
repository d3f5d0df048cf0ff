"""Raspberry Pi 3, 4, 5 and Zero 2 with a PLC modem on the 40-pin header and a radio module on USB.

Pin numbers are BCM numbers. The header's serial port is /dev/ttyAMA0 once Bluetooth has given it up
(`dtoverlay=disable-bt`) and the login console is off it (raspi-config). The other pins are what our
wiring uses: see docs/deployment.md, and change them here for another board on the header.
"""

from board.profile import Board, Led, ResetLine, SerialPort

BOARD = Board(
    name="raspberry-pi",
    chip="/dev/gpiochip0",
    serial_ports=(
        SerialPort("plc", "/dev/ttyAMA0"),
        SerialPort("radio", "/dev/ttyUSB0"),
    ),
    resets=(ResetLine("plc", pin=17, active_low=True, pulse_s=0.1, settle_s=2.0),),
    leds=(Led("alive", pin=23, active_low=False), Led("uplink", pin=24, active_low=False)),
)
