"""Every effect and every reading of the world, one module a concern.

Thin: decode, call a provider, answer typed evidence.

All are idempotent. A permanent no (`Refused`) comes back as an outcome or a non-retryable error; no answer
(`Unreachable`) is raised, and Temporal asks again within the limits that `workflows/options.py` sets.
"""
