"""The systems' names, as the tables have them."""

OURS, PATRONI, AUTO_FAILOVER, REPMGR, FLOOR = (
    "this project",
    "Patroni",
    "pg_auto_failover",
    "repmgr",
    "floor",
)
