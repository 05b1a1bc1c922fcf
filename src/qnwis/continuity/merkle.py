"""The Merkle tree over the audit records, as in RFC 6962 section 2.1.

One hash, the root, commits to every record and its place. An inclusion proof shows with about log2(n) hashes
that a record stands in a tree of n; a consistency proof, that a later tree begins with all of an earlier one,
so that nothing was changed, put in between or cut off since. Leaves and inner nodes are hashed under
different prefixes: no inner node can be passed off as a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise

HASH_BYTES = 32
LEAF, NODE = b"\x00", b"\x01"
EMPTY_ROOT = sha256().digest()
"""Root of the tree without a leaf."""


def leaf_hash(data: bytes) -> bytes:
    return sha256(LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(NODE + left + right).digest()


class Tree:
    """A tree that grows by appending.

    It keeps every hash of a complete subtree, about two for each leaf, so that a root or a proof, of this
    size or of any earlier one, hashes about log2(n) times only.
    """

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        """Of level k, the hashes of the complete subtrees with 2**k leaves, from the left."""
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        level, node = 0, leaf
        while True:
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(node)
            if len(row) % 2:
                return
            level, node = level + 1, node_hash(row[-2], row[-1])

    def leaf(self, index: int) -> bytes:
        return self._levels[0][index]

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves, by default of all. Raises ValueError for more than there are."""
        end = self.size if size is None else size
        if not 0 <= end <= self.size:
            raise ValueError(f"size {end}: expected 0 to {self.size}, the number of leaves")
        return self._hash(0, end)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Proof that leaf `index` (from 0) stands in the tree of the first `size` leaves (PATH of the RFC).

        Raises ValueError where that tree has no such leaf.
        """
        end = self.size if size is None else size
        if not 0 <= index < end <= self.size:
            raise ValueError(f"leaf {index} of {end}: expected 0 <= leaf < size <= {self.size}")
        return [self._hash(low, high) for low, high in _siblings(index, end)]

    def consistency(self, first: int, size: int | None = None) -> list[bytes]:
        """Proof that the tree of `size` leaves begins with that of the first `first` (PROOF of the RFC).

        Empty where they are the same. Raises ValueError unless 1 <= first <= size.
        """
        end = self.size if size is None else size
        if not 1 <= first <= end <= self.size:
            raise ValueError(f"{first} of {end}: expected 1 <= first <= size <= {self.size}")
        return list(self._subproof(first, 0, end, whole=True))

    def _subproof(self, first: int, low: int, high: int, *, whole: bool) -> Iterator[bytes]:
        if low + first == high:
            if not whole:
                yield self._hash(low, high)
            return
        middle = low + _split(high - low)
        if low + first <= middle:
            yield from self._subproof(first, low, middle, whole=whole)
            yield self._hash(middle, high)
        else:
            yield from self._subproof(low + first - middle, middle, high, whole=False)
            yield self._hash(low, middle)

    def _hash(self, low: int, high: int) -> bytes:
        """Of the leaves from `low` to before `high`; `low` is where a subtree of this tree begins."""
        count = high - low
        if count == 0:
            return EMPTY_ROOT
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._levels[level][low >> level]
        middle = low + _split(count)
        return node_hash(self._hash(low, middle), self._hash(middle, high))


def grown(peaks: Sequence[bytes], size: int, leaf: bytes) -> list[bytes]:
    """The peaks of a tree of `size` leaves (its complete subtrees, from the largest) after one leaf more.

    They are all that has to be kept to go on with a tree: about log2(n) hashes.
    """
    after = [*peaks, leaf]
    while size & 1:
        right = after.pop()
        after[-1] = node_hash(after[-1], right)
        size >>= 1
    return after


def root_of(peaks: Sequence[bytes]) -> bytes:
    """Root of the tree with these peaks."""
    root = peaks[-1] if peaks else EMPTY_ROOT
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows that the leaf hash stands at `index` (from 0) in the tree of that root."""
    if not 0 <= index < size or not _are_hashes((leaf, root, *proof)):
        return False
    siblings = list(_siblings(index, size))
    if len(proof) != len(siblings):
        return False
    node = leaf
    for (low, _), sibling in zip(siblings, proof, strict=True):
        node = node_hash(sibling, node) if low < index else node_hash(node, sibling)
    return node == root


def verify_consistency(first: int, first_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree of `size` and `root` begins with that of `first` and its root.

    Every tree begins with the empty one; a proof of that says nothing and has to be empty.
    """
    if not 0 <= first <= size or not _are_hashes((first_root, root, *proof)):
        return False
    if first == 0:
        return first_root == EMPTY_ROOT and not proof and (size > 0 or root == EMPTY_ROOT)
    if first == size:
        return first_root == root and not proof
    # RFC 9162 section 2.1.4.2: climb from the last complete subtree of the first tree to both roots.
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    inner, last = first - 1, size - 1
    while inner & 1:
        inner, last = inner >> 1, last >> 1
    was = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if inner & 1 or inner == last:
            was, now = node_hash(sibling, was), node_hash(sibling, now)
            while inner and not inner & 1:
                inner, last = inner >> 1, last >> 1
        else:
            now = node_hash(now, sibling)
        inner, last = inner >> 1, last >> 1
    return last == 0 and was == first_root and now == root


def _siblings(index: int, size: int) -> Iterator[tuple[int, int]]:
    """What an inclusion proof consists of: ranges of leaves (low, before high), from the leaf to the root."""
    ranges = [(0, size)]
    while (span := ranges[-1][1] - ranges[-1][0]) > 1:
        low, high = ranges[-1]
        middle = low + _split(span)
        ranges.append((low, middle) if index < middle else (middle, high))
    for (inner_low, inner_high), (low, high) in pairwise(reversed(ranges)):
        yield (inner_high, high) if inner_low == low else (low, inner_low)


def _split(count: int) -> int:
    """The largest power of two below `count`, for two or more."""
    return 1 << (count - 1).bit_length() - 1


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
