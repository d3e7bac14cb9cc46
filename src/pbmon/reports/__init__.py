"""Reports: what the store knows, written for people."""
