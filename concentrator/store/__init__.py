"""The store: every reading on flash before it counts as read, once, until it is acknowledged upstream."""
