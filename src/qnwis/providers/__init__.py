"""Adapters to the world, each behind a small protocol: nodes, DNS, fencing hook, audit store, notifier."""
