"""Reading octets for people: recognise any frame of metering, explain it, say what is wrong with it."""
