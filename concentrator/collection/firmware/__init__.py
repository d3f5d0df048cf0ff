"""Firmware of meters: signed images, and campaigns that bring one to many meters by Image transfer (class 18)."""
