"""Random numbers by name: the same seed, name and block give the same numbers, whatever else was drawn.

So two settings are compared on the same failures (common random numbers), and nothing depends on the order
in which things are computed. Only the bit generator's raw output is used, which numpy keeps stable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from .world import Spread

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Draws:
    def __init__(self, seed: int, block: str) -> None:
        """`block` names the failures that the numbers are for."""
        self._prefix = f"{seed}\0{block}\0"

    def uniform(self, name: str, *shape: int) -> Floats:
        """From 0 to just below 1."""
        digest = hashlib.sha256((self._prefix + name).encode()).digest()
        raw = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(prod(shape))
        return np.asarray((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def normal(self, name: str, *shape: int) -> Floats:
        """Box and Muller: a shape that every version of numpy gives from the same raw numbers."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(name + "/radius", *shape)))
        return np.asarray(radius * np.cos(2 * np.pi * self.uniform(name + "/angle", *shape)))

    def spread(self, name: str, spread: Spread, *shape: int) -> Floats:
        if spread.sigma == 0:
            return np.full(shape, spread.median)
        return np.asarray(spread.median * np.exp(spread.sigma * self.normal(name, *shape)))

    def choice(self, name: str, weights: Sequence[float], count: int) -> Ints:
        """Indices, as often as their weights say."""
        edges = np.cumsum(np.asarray(weights) / sum(weights))
        edges[-1] = 1.0
        return np.searchsorted(edges, self.uniform(name, count), side="right").astype(np.int64)
