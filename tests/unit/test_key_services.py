"""Keys that never leave a service: Vault and Azure by a stand-in over real HTTP, KMS by moto."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.kms.models import kms_backends

from qnwis.payloads import data_converter
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.key_azure import AzureKeyStore
from qnwis.providers.key_store import KeyStore, KeyStoreError, LostKey, Wrapped, key_store_of
from tests.key_services import TOKEN, KeyVault, Vault, served
from tests.unit.continuity.test_audit import ARTEFACTS, draft

KEY = b"k" * 32


@dataclass
class Kept:
    """A key service, as a process is told of it."""

    environment: dict[str, str]
    rotate: Callable[[], object]
    lose: Callable[[], object]
    """The oldest key is gone."""

    @property
    def store(self) -> KeyStore:
        """As one more process has it."""
        store = key_store_of(self.environment)
        assert store is not None
        return store


def vault() -> Iterator[Kept]:
    service = Vault()
    with served(service) as url:
        environment = {"QNWIS_KEY_STORE": "vault:transit/qnwis", "VAULT_ADDR": url, "VAULT_TOKEN": TOKEN}
        yield Kept(environment, service.rotate, lambda: setattr(service, "oldest", 2))


def azure() -> Iterator[Kept]:
    service = KeyVault()
    first = service.rotate()
    with served(service) as url:
        service.url = url
        environment = {
            "QNWIS_KEY_STORE": f"azure:{url}/keys/qnwis/{first}",
            "AZURE_AUTHORITY_HOST": url,
            "AZURE_TENANT_ID": "tenant-1",
            "AZURE_CLIENT_ID": "worker",
            "AZURE_CLIENT_SECRET": "hunter2",
        }
        yield Kept(environment, service.rotate, lambda: service.keys.pop(first))


def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client: Any = boto3.client("kms")
        first = client.create_key()["KeyMetadata"]["KeyId"]
        labels = client.create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")["KeyMetadata"]["KeyId"]
        kept = Kept({"QNWIS_KEY_STORE": f"kms:{first}?labels={labels}"}, lambda: None, lambda: None)

        def rotate() -> None:  # as an alias that names another key has it
            another = client.create_key()["KeyMetadata"]["KeyId"]
            kept.environment["QNWIS_KEY_STORE"] = f"kms:{another}?labels={labels}"

        kept.rotate = rotate
        backend = kms_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
        kept.lose = lambda: backend.keys.pop(first)  # as after the days that a deletion waits
        yield kept


@pytest.fixture(params=["vault", "azure", "kms"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    yield from {"vault": vault, "azure": azure, "kms": lambda: kms(monkeypatch)}[request.param]()


async def test_what_a_service_wrapped_it_alone_unwraps(kept: Kept) -> None:
    wrapped = await kept.store.wrap(KEY)
    assert await kept.store.unwrap(wrapped) == KEY
    assert KEY not in wrapped.blob and b64encode(KEY)[:20] not in wrapped.blob
    middle = len(wrapped.blob) // 2
    changed = b"B" if wrapped.blob[middle : middle + 1] == b"A" else b"A"
    altered = wrapped.blob[:middle] + changed + wrapped.blob[middle + 1 :]
    for wrong in (altered, wrapped.blob[:-4], b""):
        with pytest.raises(KeyStoreError):
            await kept.store.unwrap(Wrapped(wrapped.key_id, wrong))
    with pytest.raises(LostKey, match="key other"):
        await kept.store.unwrap(Wrapped("other", wrapped.blob))


async def test_after_a_rotation_a_new_key_wraps_the_old_one_unwraps_and_a_lost_one_is_named(
    kept: Kept,
) -> None:
    before, label = await kept.store.wrap(KEY), kept.store.label_key()
    kept.rotate()
    after = await kept.store.wrap(KEY)
    assert before.key_id != after.key_id
    assert await kept.store.unwrap(before) == await kept.store.unwrap(after) == KEY
    assert kept.store.label_key() == label and len(label) == 32, "pseudonyms outlive a rotation"
    kept.lose()
    with pytest.raises(LostKey) as lost:
        await kept.store.unwrap(before)
    assert before.key_id in str(lost.value)
    assert await kept.store.unwrap(after) == KEY


async def test_records_and_histories_are_encrypted_with_it(kept: Kept, tmp_path: Path) -> None:
    record = await audit_store_of(tmp_path, kept.environment).append(draft(1), ARTEFACTS)
    again = audit_store_of(tmp_path, kept.environment)
    assert await again.get(record.audit_id) == record and await again.verify() == ()
    converter = data_converter(kept.environment)
    (sealed,) = await converter.encode(["smoke in hall seven"])
    assert b"smoke" not in sealed.SerializeToString()
    assert await data_converter(kept.environment).decode([sealed], [str]) == ["smoke in hall seven"]


async def test_whoever_may_not_ask_is_told_so_and_no_secret_is_shown() -> None:
    service = KeyVault()
    first = service.rotate()
    with served(Vault()) as url, served(service) as azure_url:
        named = {"QNWIS_KEY_STORE": "vault:transit/qnwis", "VAULT_ADDR": url}
        wrong = {**named, "VAULT_TOKEN": "hvs.wrong-hunter2"}
        environments = [
            (wrong, "403: permission denied"),
            ({**named, "HOME": "/nowhere"}, "VAULT_TOKEN is not set"),
            ({**named, "VAULT_ADDR": "", "VAULT_TOKEN": TOKEN}, "VAULT_ADDR: expected"),
            ({**named, "VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": TOKEN}, "does not answer"),
            ({**named, "VAULT_ADDR": "http://vault:port", "VAULT_TOKEN": TOKEN}, "is malformed"),
            ({**named, "VAULT_TOKEN": "hünter2"}, "is malformed"),
            ({**named, "VAULT_TOKEN": TOKEN, "VAULT_CACERT": "/nowhere.pem"}, "/nowhere.pem is no file with"),
            ({**named, "VAULT_TOKEN": TOKEN, "VAULT_CACERT": __file__}, "is no file with"),
            (
                {
                    "QNWIS_KEY_STORE": f"azure:{azure_url}/keys/qnwis/{first}",
                    "AZURE_AUTHORITY_HOST": azure_url,
                    "AZURE_TENANT_ID": "tenant-1",
                    "AZURE_CLIENT_ID": "worker",
                    "AZURE_CLIENT_SECRET": "not-hunter2",
                },
                "401: invalid_client",
            ),
        ]
        for environment, said in environments:
            store = key_store_of(environment)
            assert store is not None
            with pytest.raises(KeyStoreError) as refused:
                await store.wrap(KEY)
            assert said in str(refused.value) and not isinstance(refused.value, LostKey)
            assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_DEFAULT_REGION", None, "NoRegionError"),
        ("AWS_PROFILE", "not-there", "ProfileNotFound"),
        ("AWS_ENDPOINT_URL", "nonsense-hunter2", "ValueError"),
    ],
)
async def test_kms_that_cannot_even_be_asked_is_an_error_of_the_key_store(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, said: str
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    known = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_CONFIG_FILE": "/nowhere", name: value}
    for variable in ("AWS_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        known.setdefault(variable, None)
    for variable, setting in known.items():
        monkeypatch.delenv(variable, raising=False)
        if setting is not None:
            monkeypatch.setenv(variable, setting)
    store = key_store_of({"QNWIS_KEY_STORE": "kms:k?labels=l"})
    assert store is not None
    with pytest.raises(KeyStoreError, match=said) as failed:
        await store.wrap(KEY)
    with pytest.raises(KeyStoreError, match=said):
        await store.unwrap(Wrapped("k", b"blob"))
    with pytest.raises(KeyStoreError, match=said):
        store.label_key()
    assert "hunter2" not in str(failed.value)


async def test_in_azure_a_machine_signs_in_as_itself_and_once_for_many(tmp_path: Path) -> None:
    service = KeyVault()
    first = service.rotate()
    with served(service) as url:
        service.url = url
        store = AzureKeyStore(f"{url}/keys/qnwis/{first}", {}, machine=url)
        for _ in range(3):
            assert await store.unwrap(await store.wrap(KEY)) == KEY
    assert service.signed_in == ["machine"]


async def test_a_token_that_vaults_agent_renewed_in_its_file_counts_at_once(tmp_path: Path) -> None:
    file = tmp_path / ".vault-token"
    file.write_text("hvs.ended\n")
    with served(Vault()) as url:
        store = key_store_of(
            {"QNWIS_KEY_STORE": "vault:transit/qnwis", "VAULT_ADDR": url, "HOME": str(tmp_path)}
        )
        assert store is not None
        with pytest.raises(KeyStoreError, match="403"):
            await store.wrap(KEY)
        file.write_text(f"{TOKEN}\n")
        assert await store.unwrap(await store.wrap(KEY)) == KEY


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("vault:qnwis", "vault:MOUNT/KEY"),
        ("kms:k?region=eu", r"kms:KEY\?labels=HMAC_KEY"),
        ("azure:https://v.example.com/keys/qnwis", "keys/NAME/VERSION"),
        ("hsm:1", "expected file:<path>, env:<variable>, vault:"),
    ],
)
def test_what_names_no_key_is_refused_and_says_what_is_expected(named: str, expected: str) -> None:
    with pytest.raises(KeyStoreError, match=expected):
        key_store_of({"QNWIS_KEY_STORE": named})
