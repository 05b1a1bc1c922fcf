"""`regions.yaml` of a registry's folder: when a region counts as lost, and how it is left."""

from __future__ import annotations

from pathlib import Path

from qnwis.continuity.regions import RegionRules

from .load import validated
from .yaml_source import read_yaml

FILE = "regions.yaml"


def load_regions(path: Path) -> RegionRules:
    """The rules in the file. Raises ConfigError."""
    return validated(RegionRules, read_yaml(path), strict=False)


def region_rules(directory: Path) -> RegionRules:
    """The rules of this registry; the defaults without a file. Raises ConfigError."""
    path = directory / FILE
    return load_regions(path) if path.exists() else RegionRules()
