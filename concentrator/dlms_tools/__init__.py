"""A DLMS client for the bench: read, write, act on and browse any meter from the command line."""
