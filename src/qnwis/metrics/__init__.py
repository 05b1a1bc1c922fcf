"""Metrics for Prometheus: instruments that keep what `qnwis.continuity.metrics` names, and their serving."""
