"""Headers of requests that operators declare: which ones hold a secret, and the one that names an effect."""

from __future__ import annotations

import re

SECRET_HEADERS = re.compile(r"auth|cookie|key|password|secret|signature|token", re.IGNORECASE)
IDEMPOTENCY_HEADER = "Idempotency-Key"
