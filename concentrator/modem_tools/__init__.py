"""A modem on the bench: which one it is, and what it says."""
