"""DLMS/COSEM, sans-IO: bytes to values and back, client conversations and a server (IEC 62056-5-3, -6-2)."""
