"""The local diagnostics page: a process of its own that reads the store and asks over the control socket."""
