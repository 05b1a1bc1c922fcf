"""This project beside other failover managers: for how long writes stand still, and whether any is lost.

    make install-peers
    make bench-rto ROUNDS=3

Both as root.

Every system manages three PostgreSQL of the same programs, each node in a network namespace of its own
(`qnwis.lab.network`), under the same clients. Every figure is of a new cluster: it is made, written to,
struck and thrown away, and only one exists at a time. A round takes every system, setting and event once, so
that all of them meet whatever else happens on the machine.

`ARGS=--json` prints every figure as JSON; `ARGS='--write docs/benchmarks.md'` has its section of that page
written anew.
"""
