"""Check the audit bundle of a run: offline, with Python and the `cryptography` package alone.

This file imports nothing else of the project: copy it anywhere and run

    python bundle_check.py BUNDLE [--public-key FILE] [--witness FILE] [--keys FILE]

Without a key it proves that not a byte was changed since the log's signer sealed the bundle, and that the
record stands in the signed log. With the public key of the log it proves whose signature that is; with heads
that a witness kept, that the log was not rewritten; with the key store's file, that the content is what the
record says. Exit code: 0 proved, 1 not (each fault with its code), 2 a file cannot be used.

Layout: MAGIC, 4 bytes length of the header, header (JSON), each file's ciphertext, 64 bytes signature
(Ed25519 over SIGNED and the SHA-256 of everything before it).
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

MAGIC = b"qnwis bundle v1\n"
SIGNED, HEAD, RECORD = b"qnwis audit bundle v1\n", b"qnwis audit tree head v1\n", b"qnwis audit record v1\n"
WRAP = b"qnwis wrapped key v1\n"
LENGTH_BYTES, SIGNATURE_BYTES, TAG_BYTES, NONCE_BYTES = 4, 64, 16, 12
MANIFEST, RECORD_FILE, ARTEFACTS = "manifest.json", "record.json", "artefacts/"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?")

Unwrap = Callable[[str, bytes], bytes]
"""Id of the key that wrapped, wrapped key: the key. Raises ValueError, which says why not."""


class Code(StrEnum):
    NOT_A_BUNDLE = "not_a_bundle"
    TRUNCATED = "truncated"  # it ends before what its header tells of
    TRAILING = "trailing_bytes"  # it goes on after its signature
    BAD_HEADER = "bad_header"  # what is not encrypted cannot be read
    ALTERED_FILE = "altered_file"  # a ciphertext is not the one that was sealed
    BAD_SIGNATURE = "bad_signature"  # the whole is not as it was signed
    FOREIGN_SIGNER = "foreign_signer"  # signed, by another than the log's key
    BAD_HEAD = "bad_tree_head"  # the tree head is not its signer's
    BAD_INCLUSION = "bad_inclusion_proof"  # the record is not shown to be in the log
    BAD_CONSISTENCY = "bad_consistency_proof"  # the log is not shown to begin with what it was
    REWRITTEN = "rewritten_log"  # a witness kept another head of the log at that size
    BAD_WITNESS = "bad_witness"  # what the witness has is no head that this signer signed
    NO_KEY = "no_key"  # the content's key cannot be unwrapped
    ALTERED_CONTENT = "altered_content"  # a file's content is not what was sealed, or what the manifest says
    ALTERED_RECORD = "altered_record"  # the record is not the one that stands in the log
    ALTERED_ARTEFACT = "altered_artefact"  # an artefact is not the one of the record


@dataclass(frozen=True)
class Fault:
    code: Code
    message: str


@dataclass
class Report:
    """What was found. Without faults the bundle is proved, as far as `notes` say."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    audit_id: str = ""
    signer: str = ""
    """SHA-256 of the public key that signed, hexadecimal."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The content by name; empty without a key."""

    def fault(self, code: Code, message: str) -> None:
        self.faults.append(Fault(code, message))


def check(
    data: bytes,
    *,
    public_key: bytes | None = None,
    witness: Sequence[dict[str, Any]] | None = None,
    unwrap: Unwrap | None = None,
) -> Report:
    """`public_key`: raw, of the log; `witness`: signed tree heads that were kept elsewhere."""
    report = Report()
    header, begins_at = _header(data, report)
    if header is None or report.faults:
        return report
    report.audit_id = header["audit_id"]
    signer = base64.b64decode(header["signer"])
    report.signer = sha256(signer).hexdigest()
    sealed = _sealed(data, begins_at, header, report)
    if not _is_signed(signer, data[-SIGNATURE_BYTES:], SIGNED + sha256(data[:-SIGNATURE_BYTES]).digest()):
        report.fault(Code.BAD_SIGNATURE, "the bundle is not as it was signed")
    if public_key is None:
        report.notes.append(
            f"no public key was given: whether {report.signer[:16]}… is the log's is not known"
        )
    elif public_key != signer:
        report.fault(Code.FOREIGN_SIGNER, f"signed by {report.signer}, which is not the key that was given")
    _check_log(header, signer, report)
    if witness is not None:
        _check_witness(header, signer, witness, report)
    if unwrap is None:
        report.notes.append("no key was given: the content was not opened")
    elif not report.faults:
        _check_content(header, sealed, signer, unwrap, report)
    return report


def _header(data: bytes, report: Report) -> tuple[dict[str, Any] | None, int]:
    """The header, and where the first ciphertext begins; None where there is none."""
    at = len(MAGIC) + LENGTH_BYTES
    if not data.startswith(MAGIC[: len(data)]):
        report.fault(Code.NOT_A_BUNDLE, f"it does not begin with {MAGIC!r}")
        return None, 0
    if len(data) < at:
        report.fault(Code.TRUNCATED, f"it ends after {len(data)} bytes, before its header")
        return None, 0
    begins_at = at + int.from_bytes(data[len(MAGIC) : at], "big")
    if begins_at > len(data):
        report.fault(Code.TRUNCATED, f"it has {len(data)} bytes; its header alone needs {begins_at}")
        return None, 0
    try:
        header = json.loads(data[at:begins_at])
        sizes = [_int(one["size"]) for one in header["files"]]
        names = [str(one["name"]) for one in header["files"]]
        fits = all(NAME.fullmatch(name) for name in names) and len({*names}) == len(names)
        for text in (header["signer"], header["key"]["wrapped"]):
            base64.b64decode(text, validate=True)
        for text in (header["audit_id"], header["key"]["id"], *(one["sha256"] for one in header["files"])):
            fits = fits and isinstance(text, str)
        heads = [header["head"], *([header["earlier"]["head"]] if header["earlier"] is not None else [])]
        for signed in heads:
            _int(signed["head"]["size"])
            bytes.fromhex(signed["head"]["root"])
            base64.b64decode(signed["signature"], validate=True)
        proofs = [header["leaf"], *header["inclusion"], *(header["earlier"] or {"proof": []})["proof"]]
        fits = fits and all(len(bytes.fromhex(text)) == 32 for text in proofs) and _int(header["index"]) >= 0
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        report.fault(Code.BAD_HEADER, f"the header cannot be read: {type(error).__name__}")
        return None, 0
    if not fits:
        report.fault(Code.BAD_HEADER, "the header names a file or a hash that cannot be one")
        return None, 0
    due = begins_at + sum(sizes) + SIGNATURE_BYTES
    if len(data) != due:
        code = Code.TRUNCATED if len(data) < due else Code.TRAILING
        report.fault(code, f"it has {len(data)} bytes; its header tells of {due}")
    return header, begins_at


def _sealed(data: bytes, at: int, header: dict[str, Any], report: Report) -> list[tuple[str, bytes]]:
    """Every file's ciphertext by name, in order."""
    found = []
    for one in header["files"]:
        found.append((one["name"], data[at : at + one["size"]]))
        at += one["size"]
        if (actual := sha256(found[-1][1]).hexdigest()) != one["sha256"]:
            report.fault(
                Code.ALTERED_FILE, f"{one['name']}: its ciphertext is {actual}; expected {one['sha256']}"
            )
    return found


def _check_log(header: dict[str, Any], signer: bytes, report: Report) -> None:
    head, leaf, index = header["head"]["head"], bytes.fromhex(header["leaf"]), header["index"]
    size, root = head["size"], bytes.fromhex(head["root"])
    if not _is_signed_head(header["head"], signer):
        report.fault(Code.BAD_HEAD, f"the head of {size} records is not its signer's")
    if not included(leaf, index, size, [bytes.fromhex(h) for h in header["inclusion"]], root):
        report.fault(Code.BAD_INCLUSION, f"record {index + 1} is not shown to be among the {size} of the log")
    if (earlier := header["earlier"]) is None:
        return
    was = earlier["head"]["head"]
    if not _is_signed_head(earlier["head"], signer):
        report.fault(Code.BAD_HEAD, f"the head of {was['size']} records is not its signer's")
    proof = [bytes.fromhex(h) for h in earlier["proof"]]
    if not consistent(was["size"], bytes.fromhex(was["root"]), size, root, proof):
        message = f"the log of {size} records is not shown to begin with the one of {was['size']}"
        report.fault(Code.BAD_CONSISTENCY, message)


def _check_witness(
    header: dict[str, Any], signer: bytes, witness: Sequence[dict[str, Any]], report: Report
) -> None:
    own = [header["head"], *([header["earlier"]["head"]] if header["earlier"] is not None else [])]
    roots = {signed["head"]["size"]: signed["head"]["root"] for signed in own}
    compared = 0
    for kept in witness:
        try:
            size, root, signed = (
                _int(kept["head"]["size"]),
                kept["head"]["root"],
                _is_signed_head(kept, signer),
            )
        except (KeyError, TypeError, ValueError):
            size, root, signed = 0, "", False
        if not signed:
            report.fault(Code.BAD_WITNESS, "the witness has something that is no head of this signer's log")
        elif size in roots:
            compared += 1
            if roots[size] != root:
                report.fault(
                    Code.REWRITTEN, f"the witness has root {root} of {size} records, not {roots[size]}"
                )
    if not compared:
        sizes = " or ".join(map(str, sorted(roots)))
        report.notes.append(f"the witness has no head of {sizes} records to compare with")


def _check_content(
    header: dict[str, Any],
    sealed: Sequence[tuple[str, bytes]],
    signer: bytes,
    unwrap: Unwrap,
    report: Report,
) -> None:
    try:
        key = AESGCM(unwrap(header["key"]["id"], base64.b64decode(header["key"]["wrapped"])))
    except ValueError as error:
        report.fault(Code.NO_KEY, str(error))
        return
    files: dict[str, bytes] = {}
    for place, (name, ciphertext) in enumerate(sealed):
        try:
            files[name] = key.decrypt(nonce(place), ciphertext, bound_to(name, header["audit_id"]))
        except (InvalidTag, ValueError):
            report.fault(Code.ALTERED_CONTENT, f"{name} was not encrypted by this bundle's key")
    if report.faults:
        return
    try:
        listed = json.loads(files.get(MANIFEST, b""))["files"]
        record = json.loads(files.get(RECORD_FILE, b""))
        manifest, written, signature = record["manifest"], record["record_hash"], record["signature"]
        unsigned = {k: v for k, v in record.items() if k not in {"record_hash", "signature"}}
        signed = _is_signed(signer, base64.b64decode(signature, validate=True), RECORD + written.encode())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        report.fault(
            Code.ALTERED_CONTENT, f"the manifest or the record cannot be read: {type(error).__name__}"
        )
        return
    report.files = files
    actual = {name: sha256(content).hexdigest() for name, content in files.items() if name != MANIFEST}
    for name in sorted({*actual, *listed}):
        if actual.get(name) != listed.get(name):
            report.fault(
                Code.ALTERED_CONTENT, f"{name} is {actual.get(name)}; the manifest has {listed.get(name)}"
            )
    leaf = sha256(b"\x00" + files[RECORD_FILE]).hexdigest()
    if leaf != header["leaf"] or record.get("audit_id") != header["audit_id"]:
        report.fault(Code.ALTERED_RECORD, "the record is not the one that is shown to be in the log")
    if written != "sha256:" + sha256(canonical(unsigned)).hexdigest() or not signed:
        report.fault(Code.ALTERED_RECORD, "the record is not as it was signed")
    found = {
        name[len(ARTEFACTS) :]: "sha256:" + d for name, d in actual.items() if name.startswith(ARTEFACTS)
    }
    for name in sorted({*found, *manifest}):
        if found.get(name) != manifest.get(name):
            report.fault(
                Code.ALTERED_ARTEFACT, f"{name} is {found.get(name)}; the record has {manifest.get(name)}"
            )


def nonce(place: int) -> bytes:
    """Of the file at that place. The key is the bundle's own, so that a place says enough."""
    return place.to_bytes(NONCE_BYTES, "big")


def bound_to(name: str, audit_id: str) -> bytes:
    """What a file's encryption is bound to, so that no file can take another's place."""
    return MAGIC + json.dumps([name, audit_id]).encode()


def canonical(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


# RFC 9162, sections 2.1.3.2 and 2.1.4.2


def included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    if not 0 <= index < size:
        return False
    inner, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if inner & 1 or inner == last:
            node = _node(sibling, node)
            while inner and not inner & 1:
                inner, last = inner >> 1, last >> 1
        else:
            node = _node(node, sibling)
        inner, last = inner >> 1, last >> 1
    return last == 0 and node == root


def consistent(first: int, first_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    if not 0 < first <= size:
        return False
    if first == size:
        return first_root == root and not proof
    path = [first_root, *proof] if first & (first - 1) == 0 else [*proof]
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
            was, now = _node(sibling, was), _node(sibling, now)
            while inner and not inner & 1:
                inner, last = inner >> 1, last >> 1
        else:
            now = _node(now, sibling)
        inner, last = inner >> 1, last >> 1
    return last == 0 and was == first_root and now == root


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _is_signed_head(signed: dict[str, Any], signer: bytes) -> bool:
    try:
        signature = base64.b64decode(signed["signature"], validate=True)
        # Base64 has several spellings of some bytes; only the one that was written counts.
        as_written = base64.b64encode(signature).decode() == signed["signature"]
        return as_written and _is_signed(signer, signature, HEAD + canonical(signed["head"]))
    except ValueError:
        return False


def _is_signed(signer: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError(f"{value!r}: expected a count")
    return value


# The command


def read_public_key(path: Path) -> bytes:
    """The raw key of a PEM file. Raises ValueError or OSError."""
    key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path}: is not an Ed25519 public key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def read_witness(path: Path) -> list[dict[str, Any]]:
    """The signed tree heads of a witness's file, a line each; of a line that cannot be read (one that a full
    disk cut off, for one) an empty object, which is no head. Raises ValueError where no line can be read, and
    OSError."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    found = [_object(line) for line in lines]
    if lines and not any(found):
        raise ValueError("no line of it is a JSON object")
    return found


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def unwrap_with(path: Path) -> Unwrap:
    """The keys of a key store's file. Raises ValueError or OSError."""
    keys = {one["id"]: base64.b64decode(one["secret"]) for one in json.loads(path.read_text())}

    def unwrap(key_id: str, wrapped: bytes) -> bytes:
        if key_id not in keys:
            raise ValueError(f"{path} has no key {key_id}")
        try:
            return AESGCM(keys[key_id]).decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], WRAP + key_id.encode()
            )
        except InvalidTag:
            raise ValueError(f"key {key_id} of {path} did not wrap this bundle's key") from None

    return unwrap


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an audit bundle, offline.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--public-key", type=Path, help="PEM, of the log that the bundle is said to be from")
    parser.add_argument("--witness", type=Path, help="signed tree heads kept elsewhere, a JSON line each")
    parser.add_argument("--keys", type=Path, help="the key store's file; with it the content is checked too")
    asked = parser.parse_args(arguments)
    try:
        report = check(
            asked.bundle.read_bytes(),
            public_key=read_public_key(asked.public_key) if asked.public_key else None,
            witness=read_witness(asked.witness) if asked.witness else None,
            unwrap=unwrap_with(asked.keys) if asked.keys else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"cannot be used: {error}", file=sys.stderr)
        return 2
    print("\n".join(told(report)))
    return 1 if report.faults else 0


def told(report: Report) -> list[str]:
    """The report for people, a line each."""
    lines = [f"{fault.code.value}: {fault.message}" for fault in report.faults]
    lines += [f"note: {note}" for note in report.notes]
    verdict = f"not proved: {len(report.faults)} faults" if report.faults else f"proved: {report.audit_id}"
    return [*lines, verdict]


if __name__ == "__main__":
    sys.exit(main())
