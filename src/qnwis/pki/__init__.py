"""An installation's own certificates: its authority, what it issues, and the allowlist that names them."""
