"""The real servers that the end-to-end tests talk to: pinned, built once, run on loopback."""
