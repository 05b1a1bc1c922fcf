"""Gates: what must hold before a release."""
