"""Mutual TLS between whoever asks agents and the agents: certificates that the allowlist pins, both ways."""
