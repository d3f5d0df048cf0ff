"""PRIME: the base node's host interface (PRIME_API over USI)."""
