"""QNWIS Continuity: failover runbooks that are durable Temporal workflows."""
