"""Sinks of alerts: a webhook, PagerDuty, and whatever apprise reaches.

One file per sink, with what is its own. `receipts` has the Protocol and what they share.
"""
