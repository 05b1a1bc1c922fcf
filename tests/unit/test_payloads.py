"""The payload codec: what goes to Temporal cannot be read, comes back as it was, and shows any change."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from qnwis.codec_server import codec_app
from qnwis.labels import label_of, use_labels
from qnwis.payloads import EncryptingCodec, PayloadError, data_converter
from qnwis.providers.key_store import EnvironmentKeyStore, FileKeyStore, KeyStoreError

KEYS = EnvironmentKeyStore("KEYS", {"KEYS": f"k1:{base64.b64encode(b's' * 32).decode()}"})
SECRET = Payload(metadata={"encoding": b"json/plain"}, data=b'"smoke in hall seven"')


@settings(max_examples=30)
@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=2))
async def test_a_payload_comes_back_as_it_was(data: bytes, metadata: dict[str, bytes]) -> None:
    payload = Payload(metadata=metadata, data=data)
    [sealed] = await EncryptingCodec(KEYS).encode([payload])
    assert await EncryptingCodec(KEYS).decode([sealed]) == [payload]


async def test_the_metadata_names_the_key_and_nothing_can_be_read() -> None:
    [sealed] = await EncryptingCodec(KEYS).encode([SECRET])
    assert (sealed.metadata["encoding"], sealed.metadata["encryption-key-id"]) == (b"binary/encrypted", b"k1")
    assert b"smoke" not in sealed.SerializeToString() and b"json" not in sealed.SerializeToString()
    assert await EncryptingCodec(KEYS).encode([SECRET]) != [sealed]


async def test_every_change_of_a_payload_shows_and_says_nothing_of_it() -> None:
    codec = EncryptingCodec(KEYS)
    [sealed] = await codec.encode([SECRET])
    for place in range(len(sealed.data)):
        data = sealed.data[:place] + bytes([sealed.data[place] ^ 1]) + sealed.data[place + 1 :]
        with pytest.raises(PayloadError) as caught:
            await codec.decode([Payload(metadata=sealed.metadata, data=data)])
        assert "smoke" not in str(caught.value)
    [other] = await EncryptingCodec(KEYS).encode([SECRET])
    with pytest.raises(PayloadError):
        await codec.decode([Payload(metadata=other.metadata, data=sealed.data)])
    for name, value in (("encryption-key-id", b"k2"), ("encryption-wrapped-key", b"x" * 60)):
        with pytest.raises(KeyStoreError):
            await codec.decode([Payload(metadata={**sealed.metadata, name: value}, data=sealed.data)])
    with pytest.raises(PayloadError):
        await codec.decode([Payload(metadata={"encoding": b"binary/encrypted"}, data=sealed.data)])


async def test_what_was_never_encrypted_is_passed_on() -> None:
    assert await EncryptingCodec(KEYS).decode([SECRET]) == [SECRET]


async def test_old_payloads_are_read_after_the_key_was_rotated(tmp_path: Path) -> None:
    keys = FileKeyStore(tmp_path / "keys.json")
    [before] = await EncryptingCodec(keys).encode([SECRET])
    keys.rotate(datetime.now(UTC))
    [after] = await EncryptingCodec(keys).encode([SECRET])
    assert before.metadata["encryption-key-id"] != after.metadata["encryption-key-id"]
    assert await EncryptingCodec(keys).decode([before, after]) == [SECRET, SECRET]


async def test_a_failure_says_nothing_in_the_clear(tmp_path: Path) -> None:
    converter = data_converter({"QNWIS_KEY_STORE": f"file:{tmp_path / 'keys.json'}"})
    failure = Failure()
    await converter.encode_failure(ApplicationError("smoke in hall seven", "erin", type="Refused"), failure)
    assert not any(word in failure.SerializeToString() for word in (b"smoke", b"erin"))
    back = await converter.decode_failure(failure)
    assert isinstance(back, ApplicationError) and back.message == "smoke in hall seven"


def test_without_a_key_store_nothing_is_encrypted_and_a_wrong_one_is_refused() -> None:
    assert data_converter({}).payload_codec is None
    with pytest.raises(KeyStoreError):
        data_converter({"QNWIS_KEY_STORE": "vault"})


async def test_without_a_key_store_what_is_encrypted_says_what_is_missing() -> None:
    converter = data_converter({})
    [sealed] = await EncryptingCodec(KEYS).encode([SECRET])
    with pytest.raises(KeyStoreError, match="is encrypted, and QNWIS_KEY_STORE is not set"):
        await converter.decode([sealed])
    assert await converter.decode(await converter.encode(["x", None, b"y", 3])) == ["x", None, b"y", 3]


def test_labels_stand_for_persons_only_where_a_key_was_set() -> None:
    assert label_of("erin") == "erin"
    try:
        use_labels(b"k" * 32)
        first = label_of("erin")
        assert "erin" not in first and label_of("erin") == first != label_of("carl")
        use_labels(b"l" * 32)
        assert label_of("erin") != first
    finally:
        use_labels(None)


# ---- the codec server

TOKEN, ORIGIN = "a token of 24 characters", "http://localhost:8233"
ASKED = {
    "payloads": [
        {
            "metadata": {"encoding": base64.b64encode(b"json/plain").decode()},
            "data": base64.b64encode(SECRET.data).decode(),
        }
    ]
}


@pytest.fixture
async def served() -> AsyncIterator[httpx.AsyncClient]:
    app = codec_app(EncryptingCodec(KEYS), token_hash=sha256(TOKEN.encode()).hexdigest(), origin=ORIGIN)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client
    await runner.cleanup()


async def test_the_ui_encodes_and_decodes_with_the_token(served: httpx.AsyncClient) -> None:
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    for authorization in (f"Bearer {TOKEN}", f"Basic {basic}"):
        headers = {"Authorization": authorization, "Origin": ORIGIN, "X-Namespace": "default"}
        sealed = await served.post("/encode", json=ASKED, headers=headers)
        assert sealed.status_code == 200 and "json" not in json.dumps(sealed.json())
        opened = await served.post("/decode", json=sealed.json(), headers=headers)
        assert opened.json() == ASKED
        assert opened.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize(
    "authorization",
    [
        *("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Basic !", f"Digest {TOKEN}"),
        *(b"Bearer \xff\xfe", b"Basic \xff\xfe", b"\xff\xfe", b"Basic " + base64.b64encode(b"me:\xff\xfe")),
    ],
)
async def test_nobody_else_is_let_in(served: httpx.AsyncClient, authorization: str | bytes) -> None:
    for method, path in (("POST", "/decode"), ("POST", "/encode"), ("GET", "/"), ("GET", "/other")):
        headers = {"Authorization": authorization} if authorization else {}
        answer = await served.request(method, path, json=ASKED, headers=headers)
        assert answer.status_code == 401 and "smoke" not in answer.text


async def test_a_preflight_is_answered_for_the_one_origin(served: httpx.AsyncClient) -> None:
    for path in ("/encode", "/decode"):
        answer = await served.options(path, headers={"Origin": ORIGIN})
        assert answer.status_code == 204 and answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert {"authorization", "content-type", "x-namespace"} == set(
            answer.headers["Access-Control-Allow-Headers"].split(", ")
        )
        other = await served.options(path, headers={"Origin": "http://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


async def test_what_cannot_be_decoded_is_said_clearly(served: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (await served.post("/decode", content=b"{", headers=headers)).status_code == 400
    [sealed] = (await served.post("/encode", json=ASKED, headers=headers)).json()["payloads"]
    altered = {**sealed, "data": base64.b64encode(b"x" * 40).decode()}
    answer = await served.post("/decode", json={"payloads": [altered]}, headers=headers)
    assert answer.status_code == 422 and "altered" in answer.text
