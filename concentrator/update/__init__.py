"""Signed updates of the concentrator itself, installed by RAUC over D-Bus."""
