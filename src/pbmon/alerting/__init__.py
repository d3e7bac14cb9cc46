"""When a burst of errors is an alert, and what is told of it. Pure.

`rules` has the thresholds and the state machine, `choices` the setting, `notices` what a sink gets.
"""
