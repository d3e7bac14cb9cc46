"""Hooks: one file per server, framework and driver, each reporting to the sinks of runtime."""
