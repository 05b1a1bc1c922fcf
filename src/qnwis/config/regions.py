"""`regions.yaml` of a registry's folder: when a region counts as lost, and how it is left."""

from __future__ import annotations

from pathlib import Path

from qnwis.continuity.regions import RegionRules

from .load import validated
from .yaml_source import read_yaml

FILE = "regions.yaml"


def load_region_rules(directory: Path) -> RegionRules:
    """The rules; the defaults without a file. Raises ConfigError."""
    path = directory / FILE
    return validated(RegionRules, read_yaml(path)) if path.exists() else RegionRules()
