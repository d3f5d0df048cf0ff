"""Uplinks: what leaves for the utility, from the store's outbox only, and counted only when acknowledged."""
