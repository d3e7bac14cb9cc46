"""The durable local queue: memory-mapped segment files that survive the process.

Everything of pbmon that waits, waits here. `queue.Spool` is this process's own, `adoption.Orphan`
one that a dead process left; both are read in the same way. Where no directory can be used,
`memory.MemoryQueue` takes its place.
"""
