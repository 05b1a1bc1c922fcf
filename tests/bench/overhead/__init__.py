"""What a run takes beyond its calls: orchestration, against a plain script that makes the same calls.

    make bench-overhead ROUNDS=10

On one lab the service is moved to and fro by planned switchovers, with real effects and no clients: in turns
by a run of the runbook, and by a script that calls the same activities in the same order, in one process and
with nothing between them. Calls that are not the same end the bench.

The overhead of a run is its wall time, from the call that starts it to its answer, less the time in which one
of its calls was carried out (as its history has it) or the plan itself waited for the old TTL. It is split by
what the run waited for then. The difference between a run and the script says the same from outside. What the
script leaves out counts in both as overhead: notifications, which are sent beside the run, and the look back
at earlier runs. Exits non-zero when a median is over 300 ms.
"""
