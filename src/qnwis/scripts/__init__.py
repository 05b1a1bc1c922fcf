"""Programs that people and CI run beside the product."""
