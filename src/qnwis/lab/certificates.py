"""The lab's certificates: an authority, and an identity for each agent and for each who asks agents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qnwis.continuity.topology import Cluster
from qnwis.pki.authority import Authority
from qnwis.pki.identities import enroll_client, enroll_node, of_client, of_node
from qnwis.tls.files import ALLOWLIST_VARIABLE, IDENTITY_VARIABLE, TlsFiles
from qnwis.transport import Transport

from .layout import Folder

PERSON = "person"
"""The client that whoever uses the lab is: tests, and commands that are typed."""


@dataclass(frozen=True)
class Certificates:
    """Of a lab, or of several that share a control plane: they lie with one of them."""

    folder: Folder
    """Of the lab with which they lie."""

    @property
    def _authority(self) -> Authority:
        return Authority(self.folder.pki)

    def begin(self, clients: tuple[str, ...]) -> None:
        """Make the authority, and who will ask agents."""
        Authority.make(self.folder.pki, organization="QNWIS lab", country=None)
        for name in (PERSON, *clients):
            enroll_client(self._authority, name, self.folder.allowlist)

    def enroll(self, cluster: Cluster) -> None:
        """Make an identity for each agent of the cluster."""
        for node in cluster.nodes:
            enroll_node(self._authority, cluster, node, self.folder.allowlist)

    def of_agent(self, cluster_id: str, node_id: str) -> TlsFiles:
        return self._files(of_node(self._authority, cluster_id, node_id))

    def of_client(self, name: str) -> TlsFiles:
        return self._files(of_client(self._authority, name))

    @property
    def transport(self) -> Transport:
        """How whoever uses the lab asks its agents."""
        return Transport(tls=self.of_client(PERSON))

    def environment(self, client: str = PERSON) -> dict[str, str]:
        """What a process needs to ask agents as this client."""
        files = self.of_client(client)
        return {IDENTITY_VARIABLE: str(files.identity), ALLOWLIST_VARIABLE: str(files.allowlist_file)}

    def _files(self, identity: Path) -> TlsFiles:
        return TlsFiles(identity, self.folder.allowlist)
