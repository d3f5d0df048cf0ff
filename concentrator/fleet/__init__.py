"""The other side of many concentrators: from their MQTT topics into PostgreSQL, each value once."""
