"""The embedded lab: real PostgreSQL nodes with agents, a DNS server, a power switch, a Temporal server and
clients, all on loopback addresses of this machine and all owned by one directory.

`cluster.Lab` puts the parts together. Linux only: it needs 127.0.0.0/8 and /proc.
"""
