"""Verbs for whoever operates a running concentrator: orders, tasks, gaps, topology."""
