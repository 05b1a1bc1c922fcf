"""What `manager: http` asks of cluster.yaml, by field and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qnwis.config.load import load_cluster
from qnwis.config.problem import ConfigError
from qnwis.continuity.losses import advice, losses, unsurvivable
from qnwis.continuity.topology import Cluster
from tests.unit.continuity.application_scenes import HOOK, by_http

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "http-service.md").read_text()
(GOOD,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def problems(folder: Path, old: str = "", new: str = "") -> list[tuple[str, str]]:
    """The field and what was expected, of each problem."""
    assert old in GOOD
    (folder / "cluster.yaml").write_text(GOOD.replace(old, new, 1) if old else GOOD)
    try:
        load_cluster(folder / "cluster.yaml")
    except ConfigError as error:
        return [(problem.field, problem.expected) for problem in error.problems]
    return []


def test_the_cluster_to_paste_is_accepted(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    loaded = load_cluster(tmp_path / "cluster.yaml")
    assert loaded.by_http and unsurvivable(loaded) is None and loaded.quorum == 1
    second = loaded.node("t2")
    assert second.http is not None
    assert second.http.state.url_of("t2", second.hostname) == "https://10.0.0.2:8080/state"
    assert Cluster.model_validate_json(loaded.model_dump_json()) == loaded


@pytest.mark.parametrize(
    ("old", "new", "field", "expected"),
    [
        ("manager: http\n", "", "nodes[0].http", "`manager: http`"),
        ("    http: *application\n", "", "nodes[1].http", "its state, demote and promote"),
        ("//{hostname}:8080/admin/promote", "//lb:8080/promote", "nodes[1].http.promote.url", "nodes[0]"),
        ("https://{hostname}:8080/state", "{hostname}:8080/state", "nodes[0].http.state.url", "https://"),
        ("{hostname}:8080/state", "{hostname}:8080/a b", "nodes[0].http.state.url", "without spaces"),
        ("{hostname}:8080/state", "{host}:8080/state", "nodes[0].http.state.url", "{node_id}"),
        ("writable: /node/writable", "writable: node.writable", "nodes[0].http.state.writable", "/writable"),
        ("answer_s: 10", "answer_s: 31", "nodes[0].http.answer_s", "30"),
        ("method: POST", "method: GET", "nodes[0].http.demote.method", "'POST'"),
        ("role: secondary", "role: witness", "nodes[1].role", "nobody votes"),
        ("name: Tickets\n", "name: Tickets\nquorum_size: 2\n", "quorum_size", "no lease"),
        (
            "name: Tickets\n",
            "name: Tickets\nreplication: {mode: synchronous}\n",
            "replication.mode",
            "by itself",
        ),
        ("    site: b\n", "    site: b\n    endpoint: http://x\n", "nodes[1].endpoint", "no agent"),
        ("    site: b\n", "    site: b\n    database: {host: x}\n", "nodes[1].database", "`hostname`"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(
    tmp_path: Path, old: str, new: str, field: str, expected: str
) -> None:
    found = problems(tmp_path, old, new)
    assert any(where == field and expected in told for where, told in found), found


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(GOOD.replace("file:/etc/qnwis/tickets-token", "Bearer hunter2"))
    with pytest.raises(ConfigError) as error:
        load_cluster(tmp_path / "cluster.yaml")
    assert "file:/path for Authorization" in str(error.value) and "hunter2" not in str(error.value)


def test_what_such_a_cluster_survives_rests_on_its_hook() -> None:
    assert losses(by_http()) == ()
    assert "fencing hook" in advice(by_http(), ())[0]
    assert advice(by_http(fencing=HOOK), ()) == ()
