"""G3-PLC: the coordinator's host interface (ADP over USI), IPv6 and UDP on the host."""
