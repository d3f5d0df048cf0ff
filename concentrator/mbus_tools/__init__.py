"""Meters on a wired M-Bus for the bench: search and read them from the command line."""
