"""The Merkle tree against the RFC's definition, written down once more in the most naive way."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.merkle import (
    EMPTY_ROOT,
    Tree,
    grown,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from qnwis.continuity.tree_heads import HeadFaultCode, compare_with_witness, is_signed, sign_head

# The definition, RFC 6962 section 2.1, on lists of the records themselves


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = below(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = below(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    return subproof(m, d, True)


def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    if m == len(d):
        return [] if b else [mth(d)]
    k = below(len(d))
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


RECORDS = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def tree_of(records: list[bytes]) -> Tree:
    return Tree([leaf_hash(record) for record in records])


def test_the_roots_of_known_trees() -> None:
    """The test vectors of RFC 6962's reference implementation."""
    records = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243")]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [tree_of(records).root(size).hex() for size in (1, 2, 3, 4, 6)] == [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    ]


@given(RECORDS)
def test_every_root_and_proof_is_the_definition_s(records: list[bytes]) -> None:
    tree = tree_of(records)
    for size in range(1, len(records) + 1):
        assert tree.root(size) == mth(records[:size])
        for index in range(size):
            assert tree.inclusion(index, size) == path(index, records[:size])
        for first in range(1, size + 1):
            assert tree.consistency(first, size) == proof(first, records[:size])


@given(RECORDS)
def test_the_peaks_alone_give_every_root(records: list[bytes]) -> None:
    peaks: list[bytes] = []
    assert root_of(peaks) == EMPTY_ROOT
    for size, record in enumerate(records):
        peaks = grown(peaks, size, leaf_hash(record))
        assert root_of(peaks) == mth(records[: size + 1])


@given(RECORDS)
def test_every_true_proof_is_accepted(records: list[bytes]) -> None:
    tree = tree_of(records)
    for size in range(1, len(records) + 1):
        root = mth(records[:size])
        for index in range(size):
            assert verify_inclusion(tree.leaf(index), index, size, path(index, records[:size]), root)
        for first in range(1, size + 1):
            assert verify_consistency(first, mth(records[:first]), size, root, proof(first, records[:size]))


def changed(data: st.DataObject, hashes: list[bytes]) -> list[bytes]:
    """A list of hashes that differs in one bit, by one more or by one less, or in its order."""
    places = st.integers(0, len(hashes) - 1) if hashes else st.nothing()
    how = data.draw(st.sampled_from(["bit", "less", "swap"] if len(hashes) > 1 else ["bit", "less"]))
    if not hashes or data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(hashes)))
        return [*hashes[:at], data.draw(st.binary(min_size=32, max_size=32)), *hashes[at:]]
    at = data.draw(places)
    if how == "less":
        return hashes[:at] + hashes[at + 1 :]
    if how == "swap":
        return [hashes[at - 1] if i == at else hashes[at] if i == (at - 1) % len(hashes) else h
                for i, h in enumerate(hashes)]  # fmt: skip
    return [*hashes[:at], flipped(data, hashes[at]), *hashes[at + 1 :]]


def flipped(data: st.DataObject, value: bytes) -> bytes:
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    return bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(value))


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40, unique=True), st.data())
def test_no_inclusion_proof_that_was_tampered_with_is_accepted(
    records: list[bytes], data: st.DataObject
) -> None:
    tree, size = tree_of(records), len(records)
    index = data.draw(st.integers(0, size - 1))
    leaf, true, root = tree.leaf(index), tree.inclusion(index), tree.root()
    tampered = changed(data, true)
    assert tampered == true or not verify_inclusion(leaf, index, size, tampered, root)
    assert not verify_inclusion(flipped(data, leaf), index, size, true, root)
    assert not verify_inclusion(leaf, index, size, true, flipped(data, root))
    other = data.draw(st.integers(-1, size + 1).filter(lambda place: place != index))
    assert not verify_inclusion(leaf, other, size, true, root)
    assert not verify_inclusion(leaf[:-1], index, size, true, root)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40, unique=True), st.data())
def test_no_consistency_proof_that_was_tampered_with_is_accepted(
    records: list[bytes], data: st.DataObject
) -> None:
    tree, size = tree_of(records), len(records)
    first = data.draw(st.integers(1, size))
    true, was, root = tree.consistency(first), tree.root(first), tree.root()
    tampered = changed(data, true)
    assert tampered == true or not verify_consistency(first, was, size, root, tampered)
    assert not verify_consistency(first, flipped(data, was), size, root, true)
    assert not verify_consistency(first, was, size, flipped(data, root), true)
    other = data.draw(st.integers(-1, size + 1).filter(lambda many: many != first))
    assert not verify_consistency(other, was, size, root, true)


@given(st.lists(st.binary(max_size=8), min_size=2, max_size=40, unique=True), st.data())
def test_no_log_that_was_rewritten_is_consistent_with_what_it_was(
    records: list[bytes], data: st.DataObject
) -> None:
    """Also where the forger makes the proof: with the hashes of his own tree."""
    at = data.draw(st.integers(0, len(records) - 1))
    forged = tree_of([*records[:at], b"forged: " + records[at], *records[at + 1 :]])
    for first in range(at + 1, len(records) + 1):
        was = mth(records[:first])
        assert not verify_consistency(first, was, forged.size, forged.root(), forged.consistency(first))


def test_an_inner_node_is_no_record() -> None:
    records = [b"a", b"b"]
    tree = tree_of(records)
    inner = tree.leaf(0) + tree.leaf(1)
    assert leaf_hash(inner) != node_hash(tree.leaf(0), tree.leaf(1)) == tree.root()
    assert not verify_inclusion(leaf_hash(inner), 0, 1, [], tree.root())


def test_every_tree_begins_with_the_empty_one() -> None:
    root = tree_of([b"a"]).root()
    assert verify_consistency(0, EMPTY_ROOT, 1, root, [])
    assert verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert not verify_consistency(0, EMPTY_ROOT, 0, root, [])
    assert not verify_consistency(0, root, 1, root, [])
    assert not verify_consistency(0, EMPTY_ROOT, 1, root, [root])


@pytest.mark.parametrize(
    "ask", [lambda t: t.root(4), lambda t: t.inclusion(3), lambda t: t.inclusion(0, 4),
            lambda t: t.inclusion(-1), lambda t: t.consistency(0), lambda t: t.consistency(3, 2)]
)  # fmt: skip
def test_what_a_tree_does_not_have_is_not_proved(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ValueError, match="expected"):
        ask(tree_of([b"a", b"b", b"c"]))


# ---- signed heads

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
AT = datetime(2025, 1, 11, 12, 34, 56, tzinfo=UTC)


def check(signature: bytes, message: bytes) -> bool:
    try:
        KEY.public_key().verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_a_head_is_its_signers_and_nothing_in_it_can_be_changed() -> None:
    signed = sign_head(3, tree_of([b"a", b"b", b"c"]).root(), AT, KEY.sign)
    assert is_signed(signed, check)
    for change in ({"size": 2}, {"root": "0" * 64}, {"at": "2025-01-11T12:34:57Z"}):
        assert not is_signed(signed.model_copy(update={"head": signed.head.model_copy(update=change)}), check)
    for signature in ("", "=", signed.signature[:-3] + chr(ord(signed.signature[-3]) + 1) + "=="):
        assert not is_signed(signed.model_copy(update={"signature": signature}), check)


def test_a_witness_tells_a_log_that_was_cut_or_rewritten() -> None:
    records = [b"a", b"b", b"c", b"d"]
    kept = [sign_head(size, mth(records[:size]), AT, KEY.sign) for size in (0, 2, 4)]
    other = sign_head(1, mth(records[:1]), AT, Ed25519PrivateKey.generate().sign)

    def found(log: list[bytes]) -> list[tuple[int, HeadFaultCode]]:
        return [
            (fault.size, fault.code) for fault in compare_with_witness([*kept, other], tree_of(log), check)
        ]

    foreign = (1, HeadFaultCode.BAD_SIGNATURE)
    assert found(records) == found([*records, b"e"]) == [foreign]
    assert found(records[:3]) == [(4, HeadFaultCode.TRUNCATED), foreign]
    assert found([b"a", b"B", b"c", b"d"]) == [
        (2, HeadFaultCode.REWRITTEN), (4, HeadFaultCode.REWRITTEN), foreign
    ]  # fmt: skip
    assert found([b"a", b"b", b"d", b"c"])[0] == (4, HeadFaultCode.REWRITTEN)
