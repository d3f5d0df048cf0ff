"""IEC 61968-9 messages: readings, events and controls of meters as CIM names them, in XML and in JSON."""
