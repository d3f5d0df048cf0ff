"""COSEM interface classes, units, and objects (IEC 62056-6-2, DLMS UA Blue Book part 2)."""
