"""Which clusters this installation knows, and where their files are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qnwis.continuity.hooks_file import Declared
from qnwis.continuity.model import Model
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import Cluster

from .kept import Kept
from .load import load_cluster, load_policy
from .problem import ConfigError, Problem


class Registered(Model):
    """A cluster and the policy that governs it."""

    cluster: Cluster
    policy: Policy
    declared: Declared = Declared()
    """Hooks and probes of the run that asks; of nobody else."""


@dataclass(frozen=True)
class Registry:
    """A directory with `cluster.yaml` and `policy.yaml`, and optionally `clusters/<cluster_id>/` with both.

    An edit of a file counts from the next load on; a file that is the same as before is not read again. A
    cluster of its own folder loads even while another cluster's files are broken.

    An active/active cluster has a folder, `clusters/<cluster_id>/`. Each of its regions is a lease group,
    which `load` knows as `<cluster_id>-<region>`.
    """

    directory: Path
    _cluster: Kept[Cluster] = field(default_factory=lambda: Kept(load_cluster), repr=False, compare=False)
    _policy: Kept[Policy] = field(default_factory=lambda: Kept(load_policy), repr=False, compare=False)

    def cluster_ids(self) -> list[str]:
        """Every cluster there is, in alphabetical order. Raises ConfigError if the top-level file is bad."""
        ids = [folder.name for folder in self._folders()]
        if self._top_level.exists() or not ids:
            top = self._cluster(self._top_level).cluster_id
            if top in ids:
                raise _mismatch(self._top_level, top, f"an id that {self._folder(top)} does not have as well")
            ids.append(top)
        return sorted(ids)

    def load(self, cluster_id: str) -> Registered:
        """Raises ConfigError for an unknown id or a bad file."""
        if self._has_folder(cluster_id):
            return self._read(self._folder(cluster_id), cluster_id)
        if (group := self._lease_group(cluster_id)) is not None:
            return group
        if cluster_id not in (ids := self.cluster_ids()):
            raise _mismatch(self.directory, cluster_id, f"one of the clusters here: {', '.join(ids)}")
        return self._read(self.directory, cluster_id)

    def _lease_group(self, cluster_id: str) -> Registered | None:
        """The lease group of that id; the policy of its active/active cluster governs it."""
        for folder in self._folders():
            if not cluster_id.startswith(f"{folder.name}-"):
                continue
            whole = self._read(folder, folder.name)
            region = cluster_id.removeprefix(f"{folder.name}-")
            if whole.cluster.is_active_active and region in whole.cluster.regions:
                return whole.model_copy(update={"cluster": whole.cluster.lease_group(region)})
        return None

    @property
    def _top_level(self) -> Path:
        return self.directory / "cluster.yaml"

    def _folder(self, cluster_id: str) -> Path:
        return self.directory / "clusters" / cluster_id

    def _has_folder(self, cluster_id: str) -> bool:
        is_name = "/" not in cluster_id and cluster_id not in {"", ".", ".."}
        return is_name and (self._folder(cluster_id) / "cluster.yaml").exists()

    def _folders(self) -> list[Path]:
        return sorted(path.parent for path in self.directory.glob("clusters/*/cluster.yaml"))

    def _read(self, folder: Path, cluster_id: str) -> Registered:
        cluster = self._cluster(folder / "cluster.yaml")
        if cluster.cluster_id != cluster_id:
            raise _mismatch(
                folder / "cluster.yaml", cluster.cluster_id, f"{cluster_id}, as the folder is named"
            )
        policy = self._policy(folder / "policy.yaml")
        # Each was validated when it was read, and watches load thousands of them again and again.
        return Registered.model_construct(cluster=cluster, policy=policy)


def _mismatch(file: Path, found: str, expected: str) -> ConfigError:
    return ConfigError([Problem(file, None, None, "cluster_id", found, expected)])
