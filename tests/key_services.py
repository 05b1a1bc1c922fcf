"""Stand-ins over real HTTP for Vault's transit engine and Azure Key Vault: as much of each protocol as is
used, with the cryptography that it stands for. Not the services themselves."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

TOKEN = "hvs.hunter2"
OAEP_256 = OAEP(MGF1(SHA256()), SHA256(), None)

Answer = tuple[int, dict[str, Any]]


class Service(Protocol):
    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer: ...


@contextmanager
def served(service: Service) -> Iterator[str]:
    """In a thread of its own; answers where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, told = service.answer(self.path, headers, body)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST  # noqa: N815  (the name that the library looks for)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Vault:
    """`transit/qnwis`, of type aes256-gcm96."""

    versions: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])
    oldest: int = 1
    """`min_decryption_version`."""

    def rotate(self) -> None:
        self.versions.append(secrets.token_bytes(32))

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if headers.get("x-vault-token") != TOKEN:
            return 403, {"errors": ["permission denied"]}
        asked = json.loads(body)
        prefix, _, key = path.rpartition("/")
        if key != "qnwis":
            return 400, {"errors": ["encryption key not found"]}
        bound = b64decode(asked.get("associated_data", ""))
        match prefix:
            case "/v1/transit/encrypt":
                nonce = secrets.token_bytes(12)
                sealed = AESGCM(self.versions[-1]).encrypt(nonce, b64decode(asked["plaintext"]), bound)
                text = f"vault:v{len(self.versions)}:{b64encode(nonce + sealed).decode()}"
                return 200, {"data": {"ciphertext": text}}
            case "/v1/transit/decrypt":
                _, version, text = asked["ciphertext"].split(":")
                number = int(version[1:])
                if not self.oldest <= number <= len(self.versions):
                    return 400, {"errors": ["ciphertext version is disallowed by policy (too old)"]}
                try:
                    raw = b64decode(text, validate=True)
                    plain = AESGCM(self.versions[number - 1]).decrypt(raw[:12], raw[12:], bound)
                except (InvalidTag, ValueError):
                    return 400, {"errors": ["cipher: message authentication failed"]}
                return 200, {"data": {"plaintext": b64encode(plain).decode()}}
            case "/v1/transit/hmac":
                key_bytes = self.versions[asked["key_version"] - 1]
                made = hmac.digest(key_bytes, b64decode(asked["input"]), "sha256")
                return 200, {"data": {"hmac": f"vault:v{asked['key_version']}:{b64encode(made).decode()}"}}
        return 404, {"errors": []}


@dataclass
class KeyVault:
    """An RSA key `qnwis`, the sign-in, and a machine's identity service."""

    url: str = ""
    keys: dict[str, RSAPrivateKey] = field(default_factory=dict)
    """By version, the newest last."""
    signed_in: list[str] = field(default_factory=list)

    def rotate(self) -> str:
        version = secrets.token_hex(16)
        self.keys[version] = generate_private_key(65537, 2048)
        return version

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        url = urlsplit(path)
        if url.path == "/metadata/identity/oauth2/token" and headers.get("metadata") == "true":
            self.signed_in.append("machine")
            return 200, {"access_token": TOKEN, "expires_in": "3600"}
        if url.path == "/tenant-1/oauth2/v2.0/token":
            form = {name: value for name, [value] in parse_qs(body.decode()).items()}
            if form.get("client_secret") != "hunter2":
                return 401, {"error": "invalid_client"}
            self.signed_in.append(form["client_id"])
            return 200, {"access_token": TOKEN, "expires_in": 3600}
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": {"message": "AKV10000: no token"}}
        parts = url.path.strip("/").split("/")
        version = parts[2] if len(parts) == 4 else [*self.keys][-1]
        if parts[:2] != ["keys", "qnwis"] or version not in self.keys:
            return 404, {"error": {"message": "a key with that version was not found"}}
        key, asked = self.keys[version], json.loads(body)
        value = urlsafe_b64decode(asked["value"] + "==")
        try:
            made = _done(key, parts[-1], value)
        except ValueError:
            return 400, {"error": {"message": "the parameter is incorrect"}}
        text = urlsafe_b64encode(made).rstrip(b"=").decode()
        return 200, {"kid": f"{self.url}/keys/qnwis/{version}", "value": text}


def _done(key: RSAPrivateKey, what: str, value: bytes) -> bytes:
    """Raises ValueError."""
    if what == "wrapkey":
        return key.public_key().encrypt(value, OAEP_256)
    if what == "unwrapkey":
        return key.decrypt(value, OAEP_256)
    return key.sign(value, PKCS1v15(), Prehashed(SHA256()))
