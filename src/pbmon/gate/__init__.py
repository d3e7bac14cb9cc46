"""Whether a run kept its budgets, and whether it is slower than another one. Pure: no I/O."""
