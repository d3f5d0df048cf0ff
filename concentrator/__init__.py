"""An open data concentrator: collects from every meter behind a transformer, and forwards to the utility."""
