"""S-FSK power line (IEC 61334-5-1, 4-32, 4-511), driven as initiator through a modem that has the MAC sub-layer."""
