"""Local ports in ASCII: the data messages of IEC 62056-21, as P1 consumer ports send them. Sans-IO."""
