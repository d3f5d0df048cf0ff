"""A simulated substation: real wire protocols on the far side of pseudo-terminals, deterministic by seed."""
