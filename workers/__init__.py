"""Processes and wiring: settings to providers to activities; a queue for runbooks and one per vantage."""
