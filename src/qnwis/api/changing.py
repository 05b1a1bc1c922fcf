"""A change of what is registered: alone, recorded, and then made."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from pydantic import BaseModel

from qnwis.config.registry import Registry
from qnwis.continuity.model import Model, canonical_json, sha256_digest
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.registration import AFTER, BEFORE, Change, draft_of_change
from qnwis.continuity.topology import Cluster
from qnwis.durable import make_folder, new_beside, sync_directory, write_new
from qnwis.providers.errors import Refused

from .asking import Asking
from .parts import Parts

WAIT_S = 30.0
"""For another change of the same cluster, which may itself wait for Temporal and for the audit store."""
TAKEN = (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY)
"""What the system answers where a folder would be renamed to something that is there."""
FILES = {Change.SET_CLUSTER: "cluster.yaml", Change.SET_POLICY: "policy.yaml"}

log = logging.getLogger(__name__)


def alone(asking: Asking, cluster_id: str) -> AbstractAsyncContextManager[None]:
    """From reading what is registered to having changed it. Raises Unreachable where another change of the
    cluster takes more than `WAIT_S`."""
    return asking.parts.store.alone(cluster_id, within_s=WAIT_S)


async def replace_file(
    asking: Asking, change: Change, cluster_id: str, found: Model, body: Model, deed_id: str
) -> None:
    """Replace the file whole. What a person wrote beside it (comments) is not kept. Raises Refused for a
    lease group, whose files are those of its active/active cluster, and where the folder cannot be written
    to, and Unreachable without a record; then nothing is changed."""
    path = _file(asking.parts.registry, cluster_id, FILES[change])
    with _writing_to(path.parent):
        held = path.stat()
        new = await asyncio.to_thread(new_beside, path, _as_yaml(body), mode=held.st_mode & 0o777)
    try:
        # One deed changes one file once. Where somebody undid what it did, its request may come again: then
        # it replaces another file, and is recorded again.
        once = f"{deed_id}-{held.st_mtime_ns}"
        await _record(asking, change, cluster_id, found, body, once)
        with _writing_to(path.parent):
            # On the loop: a thread could do it after a request that was cut off let others in.
            new.replace(path)
        await asyncio.to_thread(sync_directory, path.parent)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


async def register_new(asking: Asking, cluster: Cluster, policy: Policy, deed_id: str) -> None:
    """Write both files of a new cluster; they are there together or not at all. Raises Refused for one that
    is registered, and where the folder cannot be written to, and Unreachable without a record; then nothing
    is written."""
    cluster_id = cluster.cluster_id
    folder = asking.parts.registry.directory / "clusters" / cluster_id
    with _writing_to(folder.parent):
        if await asyncio.to_thread(_taken, asking.parts, cluster_id, folder):
            raise Refused(_registered_already(cluster_id))
        make_folder(folder.parent)
        # Where it will be: this folder alone has to be writable, and is seen to be so before the record.
        temporary = TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True)
    with temporary as beside:
        made = Path(beside) / cluster_id
        with _writing_to(folder.parent):
            await asyncio.to_thread(_write_both, made, cluster, policy)
        await _record(asking, Change.REGISTER_CLUSTER, cluster_id, None, cluster, deed_id)
        with _writing_to(folder.parent):
            try:
                made.rename(folder)
            except OSError as error:
                if error.errno in TAKEN:  # somebody made it by hand in this moment
                    raise Refused(_registered_already(cluster_id)) from error
                raise
        await asyncio.to_thread(sync_directory, folder.parent)


async def _record(
    asking: Asking, change: Change, cluster_id: str, before: Model | None, after: Model, deed_id: str
) -> None:
    draft = draft_of_change(
        change,
        cluster_id,
        by=asking.who,
        before=None if before is None else sha256_digest(before),
        after=sha256_digest(after),
        deed_id=deed_id,
        at=asking.parts.now(),
    )
    texts = {AFTER: canonical_json(after), **({} if before is None else {BEFORE: canonical_json(before)})}
    await asking.parts.audit.append(draft, texts)


def _file(registry: Registry, cluster_id: str, name: str) -> Path:
    if cluster_id not in registry.cluster_ids():
        raise Refused(
            Refusal(
                rule="part_of_another",
                message=f"{cluster_id} is a lease group, and has no files of its own",
                values={"cluster_id": cluster_id},
                remedy="Change the whole cluster.",
            )
        )
    folder = registry.directory / "clusters" / cluster_id
    return (folder if folder.is_dir() else registry.directory) / name


def _taken(parts: Parts, cluster_id: str, folder: Path) -> bool:
    """Whether the cluster is registered, or its folder has something else in it."""
    return parts.known(cluster_id) is not None or (folder.exists() and any(folder.iterdir()))


def _write_both(folder: Path, cluster: Cluster, policy: Policy) -> None:
    folder.mkdir(mode=0o755)
    for name, value in (("policy.yaml", policy), ("cluster.yaml", cluster)):
        write_new(folder / name, _as_yaml(value), mode=0o666)


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Raises Refused where the folder, or what is in it, cannot be written to."""
    try:
        yield
    except OSError as error:
        log.error("%s cannot be written to: %s", folder, error)
        raise Refused(_not_writable(folder, error.strerror or str(error))) from error


def _not_writable(folder: Path, reason: str) -> Refusal:
    return Refusal(
        rule="not_usable",
        message=f"The API cannot write to {folder} ({reason}); nothing is changed",
        values={"folder": str(folder), "reason": reason},
        remedy="Change the files where they are kept; or give the API's user the folder, writable: in what is"
        " shipped it is read only, and a line to change says how.",
    )


def _registered_already(cluster_id: str) -> Refusal:
    return Refusal(
        rule="cluster_registered",
        message=f"{cluster_id} is registered already",
        values={"cluster_id": cluster_id},
        remedy=f"Change it: PUT /api/v1/continuity/clusters/{cluster_id}.",
    )


def _as_yaml(value: BaseModel) -> str:
    data = value.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
