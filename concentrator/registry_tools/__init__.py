"""Verbs for the registry: meters, their models and their keys."""
