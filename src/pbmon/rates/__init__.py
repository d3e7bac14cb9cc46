"""Exchange rates: `bundled` has those of the European Central Bank, `service` asks a server,
`chosen` is both by the settings, and `tables` what they share. Loaded by the worker alone."""
