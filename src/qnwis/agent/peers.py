"""The peers that this agent knows: those of its configuration, and those it learned of since."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from qnwis.continuity.membership import Peer

from .config import AgentConfig
from .files import StateError, read_kept, write_durably

_PEERS: TypeAdapter[tuple[Peer, ...]] = TypeAdapter(tuple[Peer, ...])


class Peers:
    """Addresses by node_id. Whether a peer is a member is the membership's to say, not this file's."""

    def __init__(self, config: AgentConfig) -> None:
        """Raises StateError for a damaged file of learned peers."""
        self._node_id = config.node_id
        self._file = config.state_dir / "peers.json"
        self._configured = {peer.node_id: peer for peer in config.peers}
        self._learned = {peer.node_id: peer for peer in _read(self._file)}

    @property
    def all(self) -> tuple[Peer, ...]:
        """What the configuration says of a peer goes before what was learned of it."""
        known = {**self._learned, **self._configured}
        return tuple(known[node_id] for node_id in sorted(known))

    def of(self, node_id: str) -> Peer | None:
        return self._configured.get(node_id) or self._learned.get(node_id)

    def among(self, node_ids: Iterable[str]) -> tuple[Peer, ...]:
        """The known ones of these."""
        wanted = set(node_ids)
        return tuple(peer for peer in self.all if peer.node_id in wanted)

    def learn(self, peers: Iterable[Peer]) -> None:
        """Remember these, on disk before anything relies on them."""
        told = {peer.node_id: peer for peer in peers if peer.node_id != self._node_id}
        learned = {**self._learned, **told}
        if learned != self._learned:
            write_durably(self._file, _PEERS.dump_json(tuple(learned.values())).decode() + "\n")
            self._learned = learned


def _read(path: Path) -> tuple[Peer, ...]:
    text = read_kept(path)
    if text is None:
        return ()
    try:
        return _PEERS.validate_json(text)
    except ValidationError as error:
        raise StateError(
            f"{path}: is not a list of peers ({error.errors()[0]['msg']}); remove it, and list every peer in"
            " the agent's configuration"
        ) from error
