"""Connectors that send analytics events to a webhook, Segment, Mixpanel or Amplitude.

One file per destination, with what is its own: the form of an event, its limits, how it answers.
`courier` has what they share, `events` the types. Nothing is kept here: who calls `send()` holds
the events, tries again later, and writes down what became of each.

    destination = Segment("write-key")
    outcome = destination.send(events)  # each event is in delivered, dead or again
"""
