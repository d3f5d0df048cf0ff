"""USI: the serial envelope that both PLC families share on Microchip modems."""
