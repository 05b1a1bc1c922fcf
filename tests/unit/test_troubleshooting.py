"""`docs/troubleshooting.md` has the messages as they are printed: each situation is brought about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from qnwis.cli.output import refuse
from qnwis.cli.qnwis_continuity import app
from qnwis.config.shipped import shipped
from qnwis.continuity.guardian_rules import Hold
from qnwis.continuity.planner import healthy_primary_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import RunOutcome
from tests.documents.typed import blocks

from .continuity import test_verifier as verifying
from .continuity.scenes import SPEC_CLUSTER, evidence, policy, primary
from .continuity.test_approvals import opened, voted
from .continuity.test_guardian_rules import decided, ran

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
CONFIG = shipped("config") / "continuity"


def said(*arguments: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "1000", "NO_COLOR": "1"})
    return done.output


def refused(refusal: Refusal | None, capsys: pytest.CaptureFixture[str]) -> str:
    """As every command prints a refusal."""
    assert refusal is not None
    with pytest.raises(typer.Exit):
        refuse(refusal, as_json=False)
    return capsys.readouterr().err


def planned(statuses: dict[str, str]) -> str:
    """`plan` on the shipped topology with these statuses, and with no limit on how many have to be well."""
    cluster = yaml.safe_load((CONFIG / "cluster.yaml").read_text())
    for node in cluster["nodes"]:
        node["status"] = statuses.get(node["node_id"], node["status"])
    Path("cluster.yaml").write_text(yaml.safe_dump(cluster))
    lenient = {**yaml.safe_load((CONFIG / "policy.yaml").read_text()), "min_healthy_nodes": 0}
    Path("policy.yaml").write_text(yaml.safe_dump(lenient))
    return said("plan", "--cluster", "cluster.yaml", "--policy", "policy.yaml")


def no_quorum(_: object) -> str:
    return planned({"node-1": "failed", "node-2": "failed"})


def no_target(_: object) -> str:
    return planned({"node-1": "failed", "node-2": "degraded", "node-3": "degraded"})


def not_verified(_: object) -> str:
    found = verifying.report(elapsed_ms=61_000, limits=policy(min_healthy_nodes=3))
    return "\n".join(f"  FAIL {check.name}: {check.detail}" for check in found.failures)


def wrong_file(_: object) -> str:
    text = (CONFIG / "cluster.yaml").read_text().replace("role: secondary", "role: replica", 1)
    Path("cluster.yaml").write_text(text)
    return said("validate", "--cluster", "cluster.yaml")


def no_server(_: object) -> str:
    return said("guardian", "view", "prod-cluster", "--address", "127.0.0.1:1")


def healthy_primary(capsys: pytest.CaptureFixture[str]) -> str:
    node = evidence(SPEC_CLUSTER, primary("node-1")).of("node-1")
    return refused(healthy_primary_refusal(node), capsys)


def cooldown(_: object) -> str:
    held = decided(ran(RunOutcome.COMPLETED, 60))
    assert isinstance(held, Hold)
    return f"guardian: {held.refusal}"


def own_vote(capsys: pytest.CaptureFixture[str]) -> str:
    refusal = voted(opened(), "ann")
    assert isinstance(refusal, Refusal)
    return refused(refusal, capsys)


def readable_key(_: object) -> str:
    key = Path("key.pem")
    said("people", "key", "--name", "ann", "--key", str(key))
    key.chmod(0o644)
    return said("abort", "prod-cluster", "--reason", "test", "--key", str(key))


ENTRIES: dict[str, Callable[[pytest.CaptureFixture[str]], str]] = {
    "Quorum not achieved": no_quorum,
    "Failover target not found": no_target,
    "Verification failed": not_verified,
    "The primary is healthy": healthy_primary,
    "A failover does not start by itself": cooldown,
    "A vote does not count": own_vote,
    "A file is refused": wrong_file,
    "A key is refused": readable_key,
    "Nobody answers": no_server,
}


def entries() -> Iterator[tuple[str, str]]:
    """By heading, what the page says is printed: the first block below it."""
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        yield title, next(block.text for block in blocks(text) if block.language == "text")


def test_every_entry_of_the_page_is_brought_about() -> None:
    assert [title for title, _ in entries()] == list(ENTRIES)


def test_every_rule_check_and_field_that_the_page_names_is_in_the_source() -> None:
    source = "\n".join(path.read_text() for path in (PAGE.parents[1] / "src" / "qnwis").rglob("*.py"))
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE.read_text()))
    assert {name for name in named if not re.search(rf"\b{name}\b", source)} == set()


@pytest.mark.parametrize(("title", "message"), list(entries()), ids=lambda value: value.partition("\n")[0])
def test_the_page_has_the_message_as_it_is_printed(
    title: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = ENTRIES[title](capsys)
    for line in message.splitlines():
        parts = [re.escape(part) for part in line.split("…")]
        assert re.search("^ *" + ".*".join(parts).lstrip("\\ ") + "$", printed, flags=re.MULTILINE), printed
