"""The bundle of a run: proved without a key, a server or a database, and not a byte of it can be changed."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

import qnwis.bundle_check
from qnwis.bundle_check import (
    Code,
    check,
    consistent,
    included,
    read_public_key,
    read_witness,
    unwrap_with,
)
from qnwis.continuity.audit import draft_of
from qnwis.continuity.bundle import BundleKey, Provable, seal
from qnwis.continuity.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion
from qnwis.continuity.model import canonical_json
from qnwis.continuity.tree_heads import sign_head
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.key_store import FileKeyStore
from qnwis.providers.witness import FileWitness

from .test_audit_persons import AT, BOB, CARL, run

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@dataclass(frozen=True)
class Kept:
    """What an auditor has: the bundle of the third of five records, and what it is checked with."""

    bundle: Path
    public_key: Path
    witness: Path
    keys: Path
    store: SqliteAuditStore
    audit_id: str

    @property
    def data(self) -> bytes:
        return self.bundle.read_bytes()

    def codes(self, data: bytes, *, opened: bool = False) -> list[Code]:
        report = check(
            data,
            public_key=read_public_key(self.public_key),
            witness=read_witness(self.witness),
            unwrap=unwrap_with(self.keys) if opened else None,
        )
        return [fault.code for fault in report.faults]


@pytest.fixture(scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    store = SqliteAuditStore(folder / "state" / "audit.sqlite", folder / "state" / "signing.pem")
    keys, witness = FileKeyStore(folder / "keys.json"), FileWitness(folder / "witness.jsonl")
    ids = []
    for number in range(5):
        artefacts = run(number)
        texts = {name: canonical_json(value) for name, value in artefacts.parts().items()}
        ids.append((await store.append(draft_of(artefacts), texts)).audit_id)
        head = await store.head()
        assert head is not None
        await witness.keep(head)
    bundles = Bundles(store, keys, folder / "bundles")
    path = await bundles.write(ids[2], canonical_json({"events": [{"initiated_by": BOB}]}))
    assert await bundles.write(ids[2]) == path
    return Kept(
        path,
        folder / "state" / "signing.pem.pub",
        folder / "witness.jsonl",
        folder / "keys.json",
        store,
        ids[2],
    )


def test_a_bundle_is_proved_without_a_key_and_opened_with_it(kept: Kept) -> None:
    assert kept.codes(kept.data) == kept.codes(kept.data, opened=True) == []
    report = check(kept.data, unwrap=unwrap_with(kept.keys))
    assert report.faults == [] and report.audit_id == kept.audit_id
    assert {"record.json", "report.md", "history.json", "artefacts/result"} <= report.files.keys()
    assert report.notes == [
        f"no public key was given: whether {report.signer[:16]}… is the log's is not known"
    ]


def test_nothing_of_the_content_and_no_person_can_be_read_in_it(kept: Kept) -> None:
    content = check(kept.data, unwrap=unwrap_with(kept.keys)).files
    assert not any(word.encode() in kept.data for word in (BOB, CARL, "rejected", "node-1"))
    assert not any(BOB.encode() in text for text in content.values())
    assert b"person:" in content["history.json"]


async def test_erasing_a_person_leaves_a_bundle_proved(kept: Kept) -> None:
    await kept.store.erase_person(CARL)
    assert kept.codes(kept.data, opened=True) == []
    assert await kept.store.verify() == ()


def test_every_bundle_has_a_key_of_its_own(kept: Kept, tmp_path: Path) -> None:
    again = Bundles(kept.store, FileKeyStore(kept.keys), tmp_path)
    first, second = (asyncio.run(again.sealed(kept.audit_id)) for _ in range(2))
    assert first != second
    assert json.loads(_header(first))["key"]["wrapped"] != json.loads(_header(second))["key"]["wrapped"]
    assert json.loads(_header(first))["leaf"] == json.loads(_header(second))["leaf"]


def _header(data: bytes) -> bytes:
    return data[20 : 20 + int.from_bytes(data[16:20], "big")]


def small() -> bytes:
    """As small as a bundle gets."""
    tree = Tree([leaf_hash(b"{}"), leaf_hash(b"[]")])
    return seal(
        Provable("{}", 0, tree, sign_head(2, tree.root(), AT, KEY.sign)),
        {"a": "b"},
        BundleKey(b"k" * 32, "k1", b"w"),
        audit_id="a",
        sign=KEY.sign,
        public_key=PUBLIC,
    )


def test_every_single_byte_that_changes_and_every_truncation_of_a_small_bundle_shows() -> None:
    data = small()
    assert check(data, public_key=PUBLIC).faults == []
    for place in range(len(data)):
        # Another bit at each place: all eight are met at every kind of byte.
        altered = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        assert check(altered, public_key=PUBLIC).faults, f"byte {place} of {len(data)}"
    for length in range(len(data)):
        faults = check(data[:length], public_key=PUBLIC).faults
        assert [fault.code for fault in faults] == [Code.TRUNCATED], f"first {length} of {len(data)}"
    assert check(data + b"\n").faults[0].code is Code.TRAILING


def test_in_every_region_of_a_bundle_every_value_of_a_byte_shows() -> None:
    data = small()
    for place in (0, 16, 19, 20, len(data) // 2, len(data) - 65, len(data) - 64, len(data) - 1):
        for value in set(range(256)) - {data[place]}:
            assert check(data[:place] + bytes([value]) + data[place + 1 :]).faults, f"byte {place} = {value}"


def test_changes_of_a_large_bundle_show_at_random_places() -> None:
    tree = Tree([leaf_hash(b"{}")])
    files = {f"artefacts/{n}": "x" * 20_000 for n in range(20)}
    data = seal(
        Provable("{}", 0, tree, sign_head(1, tree.root(), AT, KEY.sign)),
        files,
        BundleKey(b"k" * 32, "k1", b"w"),
        audit_id="a",
        sign=KEY.sign,
        public_key=PUBLIC,
    )
    chance = random.Random(7)
    for _ in range(100):
        place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        assert check(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]).faults
        assert check(data[: chance.randrange(len(data))]).faults


@given(st.binary(max_size=80), st.binary(max_size=60))
def test_whatever_is_given_as_a_bundle_is_answered_with_a_fault(start: bytes, header: bytes) -> None:
    assert check(start).faults
    assert check(b"qnwis bundle v1\n" + len(header).to_bytes(4, "big") + header + start).faults


def forged(data: bytes, key: Ed25519PrivateKey, changes: Mapping[str, object] | None = None) -> bytes:
    """The bundle with another header, signed by this key."""
    told = json.loads(_header(data)) | dict(changes or {})
    header = canonical_json(told).encode()
    rest = data[20 + len(_header(data)) : -64]
    whole = data[:16] + len(header).to_bytes(4, "big") + header + rest
    return whole + key.sign(b"qnwis audit bundle v1\n" + sha256(whole).digest())


def test_what_somebody_else_signed_is_told_apart(kept: Kept) -> None:
    mallory = Ed25519PrivateKey.generate()
    raw = mallory.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert kept.codes(forged(kept.data, mallory)) == [Code.BAD_SIGNATURE]
    signer = {"signer": base64.b64encode(raw).decode()}
    assert set(kept.codes(forged(kept.data, mallory, signer))) == {
        Code.FOREIGN_SIGNER, Code.BAD_HEAD, Code.BAD_WITNESS
    }  # fmt: skip


def own_key(kept: Kept) -> Ed25519PrivateKey:
    key = load_pem_private_key((kept.bundle.parent.parent / "state" / "signing.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def test_even_the_logs_own_key_cannot_forge_a_proof_or_the_content(kept: Kept) -> None:
    """The signer itself, who wants a bundle to say something that the log does not."""
    key, told = own_key(kept), json.loads(_header(kept.data))
    nothing = "0" * 64
    assert forged(kept.data, key) == kept.data
    for changes, expected in (
        ({"index": 3}, {Code.BAD_INCLUSION}),
        ({"inclusion": told["inclusion"][1:]}, {Code.BAD_INCLUSION}),
        ({"leaf": nothing}, {Code.BAD_INCLUSION}),
        ({"head": told["earlier"]["head"]}, {Code.BAD_INCLUSION, Code.BAD_CONSISTENCY}),
        ({"earlier": told["earlier"] | {"proof": [nothing]}}, {Code.BAD_CONSISTENCY}),
        ({"files": told["files"][::-1]}, {Code.ALTERED_FILE}),
        ({"files": [told["files"][0]]}, {Code.TRAILING}),
        ({"files": [told["files"][0] | {"name": "../x"}]}, {Code.BAD_HEADER}),
        ({"audit_id": "other"}, {Code.ALTERED_CONTENT}),
        ({"key": told["key"] | {"id": "other"}}, {Code.NO_KEY}),
        ({"signer": 7}, {Code.BAD_HEADER}),
    ):
        assert set(kept.codes(forged(kept.data, key, changes), opened=True)) >= expected, changes


def test_a_log_that_was_rewritten_after_a_witness_saw_it_shows(kept: Kept) -> None:
    key = own_key(kept)
    other = Tree([leaf_hash(b"other")] * 5)
    kept_elsewhere = [sign_head(5, other.root(), AT, key.sign).model_dump(mode="json")]
    codes = [fault.code for fault in check(kept.data, witness=kept_elsewhere).faults]
    assert codes == [Code.REWRITTEN]
    assert [fault.code for fault in check(kept.data, witness=[{"head": 7}]).faults] == [Code.BAD_WITNESS]
    torn = check(kept.data, witness=[{}, *kept_elsewhere]).faults
    assert [fault.code for fault in torn] == [Code.BAD_WITNESS, Code.REWRITTEN], "the others count"
    unseen = check(kept.data, witness=[])
    assert unseen.faults == [] and "no head of 2 or 5 records" in unseen.notes[1]


@given(st.integers(1, 40), st.data())
def test_the_copyable_verifier_agrees_with_the_domain(size: int, data: st.DataObject) -> None:
    tree = Tree([leaf_hash(bytes([n])) for n in range(size)])
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    for proof in (tree.inclusion(index), data.draw(st.permutations(tree.inclusion(index)))):
        for at in (index, data.draw(st.integers(-1, size))):
            asked = (tree.leaf(index), at, size, proof, tree.root())
            assert included(*asked) == verify_inclusion(*asked)
    for proof in (tree.consistency(first), data.draw(st.permutations(tree.consistency(first)))):
        shown = (first, tree.root(first), size, tree.root(), proof)
        assert consistent(*shown) == verify_consistency(*shown)


def alone(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The verifier copied away, in an interpreter that is given nothing of ours."""
    copy = folder / "bundle_check.py"
    shutil.copy(qnwis.bundle_check.__file__, copy)
    given: Sequence[str] = [str(argument) for argument in arguments]
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:];"
        "sys.path[:] = [p for p in sys.path if '/src' not in p];"
        "sys.modules['qnwis'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code, str(copy), *given], capture_output=True, text=True, cwd=folder
    )


def test_the_verifier_runs_alone(kept: Kept, tmp_path: Path) -> None:
    proof = ("--public-key", kept.public_key, "--witness", kept.witness, "--keys", kept.keys)
    ran = alone(tmp_path, kept.bundle, *proof)
    assert (ran.returncode, ran.stdout) == (0, f"proved: {kept.audit_id}\n"), ran.stderr
    (tmp_path / "cut").write_bytes(kept.data[:-1])
    ran = alone(tmp_path, tmp_path / "cut")
    assert ran.returncode == 1 and ran.stdout.startswith("truncated: ")
    ran = alone(tmp_path, tmp_path / "none")
    assert ran.returncode == 2 and "cannot be used" in ran.stderr
