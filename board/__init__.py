"""Boards: one short data file each, and a `machine`-like face to pins and serial ports."""
