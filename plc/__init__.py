"""Power-line modems driven from a host: USI framing, PRIME base node, G3-PLC coordinator.

Everything here runs unchanged on CPython and on MicroPython, and does no I/O: bytes and the time go in,
events and bytes come out.
"""
