"""Configuration files: the specification's load as written, and bad ones lead to the line to edit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qnwis.config.load import load_cluster, load_policy, load_rbac
from qnwis.config.problem import ConfigError, Problem
from qnwis.config.registry import Registry
from qnwis.config.shipped import shipped
from qnwis.continuity.model import canonical_json, sha256_digest
from qnwis.continuity.policy import Strategy
from qnwis.continuity.topology import LONGEST_LIST, MOST_NODES, Cluster, NodeRole, NodeStatus
from tests.unit.continuity.scenes import cluster, node

CLUSTER_YAML = """\
cluster_id: prod-cluster
name: Production Cluster
quorum_size: 2  # Optional, defaults to N/2 + 1
regions:
  - region-1
  - region-2
nodes:
  - node_id: node-1
    hostname: 10.0.1.10
    role: primary
    region: region-1
    site: site-a
    status: healthy
    priority: 100
    capacity: 100.0
  
  - node_id: node-2
    hostname: 10.0.1.11
    role: secondary
    region: region-1
    site: site-b
    status: healthy
    priority: 90
    capacity: 95.0
  
  - node_id: node-3
    hostname: 10.0.2.10
    role: secondary
    region: region-2
    site: site-c
    status: healthy
    priority: 80
    capacity: 90.0
"""  # noqa: W293 - as the specification has it, blanks included

POLICY_YAML = """\
policy_id: auto-failover-policy
name: Automatic Failover Policy
strategy: automatic  # automatic | manual | quorum_based
max_failover_time_s: 60
require_quorum: true
region_priority:
  - region-1
  - region-2
site_priority:
  - site-a
  - site-b
  - site-c
min_healthy_nodes: 2
"""


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    return tmp_path / "cluster.yaml"


def problems_of(file: Path, text: str | bytes) -> list[tuple[int | None, str, str, str]]:
    """(line, field, value, expected) of each problem of a cluster file with that text."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_cluster(file)
    assert {p.file for p in caught.value.problems} == {file}
    return [(p.line, p.field, p.value, p.expected) for p in caught.value.problems]


def edited(old: str, new: str, text: str = CLUSTER_YAML) -> str:
    assert text.count(old) == 1, f"{old!r} must stand exactly once"
    return text.replace(old, new)


# ---- good files


def test_the_specifications_cluster_loads_unchanged(cluster_file: Path) -> None:
    cluster_file.write_text(CLUSTER_YAML)
    cluster = load_cluster(cluster_file)
    assert (cluster.cluster_id, cluster.quorum, cluster.regions) == (
        "prod-cluster",
        2,
        ("region-1", "region-2"),
    )
    assert [(n.node_id, n.role, n.site, n.priority, n.capacity) for n in cluster.nodes] == [
        ("node-1", NodeRole.PRIMARY, "site-a", 100, 100.0),
        ("node-2", NodeRole.SECONDARY, "site-b", 90, 95.0),
        ("node-3", NodeRole.SECONDARY, "site-c", 80, 90.0),
    ]
    assert {n.status for n in cluster.nodes} == {NodeStatus.HEALTHY}


def test_the_specifications_policy_loads_unchanged(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY_YAML)
    policy = load_policy(tmp_path / "policy.yaml")
    assert (policy.strategy, policy.max_failover_time_s, policy.require_quorum) == (
        Strategy.AUTOMATIC,
        60,
        True,
    )
    assert (policy.site_priority, policy.min_healthy_nodes) == (("site-a", "site-b", "site-c"), 2)


def test_the_shipped_files_are_the_specifications() -> None:
    continuity = shipped("config") / "continuity"
    assert (continuity / "cluster.yaml").read_text() == CLUSTER_YAML
    assert (continuity / "policy.yaml").read_text() == POLICY_YAML
    allowlist = yaml.safe_load((continuity / "allowlist.example.yaml").read_text())
    assert [n["node_id"] for n in allowlist["allowed_nodes"]] == ["node-1", "node-2"]
    assert allowlist["security_settings"]["min_tls_version"] == "1.3"
    rbac = yaml.safe_load((shipped("config") / "rbac" / "continuity.yaml").read_text())["rbac"]
    assert [r["name"] for r in rbac["roles"]] == [
        "continuity_viewer",
        "continuity_operator",
        "continuity_admin",
    ]
    assert rbac["approval_workflows"] == {
        "manual_failover": {
            "required_approvers": 1,
            "allowed_roles": ["continuity_admin", "sre_oncall"],
            "timeout_sec": 600,
        },
        "emergency_override": {
            "required_approvers": 2,
            "allowed_roles": ["continuity_admin"],
            "timeout_sec": 300,
        },
    }


def test_a_digest_survives_the_way_through_json() -> None:
    """Defaults included: an int default in a float field would come back as another text."""
    registered = Registry(shipped("config") / "continuity").load("prod-cluster")
    for value in (registered.cluster, registered.policy):
        again = type(value).model_validate_json(canonical_json(value))
        assert sha256_digest(again) == sha256_digest(value)


def test_optional_fields_extend_the_specification(cluster_file: Path) -> None:
    cluster_file.write_text(
        CLUSTER_YAML.replace(
            "    capacity: 100.0\n", "    capacity: 100\n    database: {host: 10.0.1.10, port: 5433}\n"
        )
        + "heartbeat:\n  interval_sec: 1\nreplication:\n  mode: synchronous\nvantages: [east, west]\n"
    )
    cluster = load_cluster(cluster_file)
    assert cluster.nodes[0].database is not None
    assert cluster.nodes[0].database.port == 5433
    assert (cluster.heartbeat.interval_sec, cluster.heartbeat.failure_threshold) == (1, 3)
    assert cluster.vantages == ("east", "west")


def test_anchors_and_merge_keys_work_and_own_fields_win(cluster_file: Path) -> None:
    cluster_file.write_text(
        """\
cluster_id: c
name: C
regions: [r]
nodes:
  - &first {node_id: a, hostname: 10.0.0.1, role: primary, region: r, site: s, priority: 7}
  - <<: *first
    node_id: b
    role: secondary
"""
    )
    cluster = load_cluster(cluster_file)
    assert [(n.node_id, n.role, n.priority) for n in cluster.nodes] == [
        ("a", "primary", 7),
        ("b", "secondary", 7),
    ]


# ---- the errors that the card names, each at its line


def test_negative_capacity(cluster_file: Path) -> None:
    assert problems_of(cluster_file, edited("capacity: 95.0", "capacity: -95.0")) == [
        (24, "nodes[1].capacity", "-95.0", "greater than or equal to 0")
    ]


def test_region_not_listed(cluster_file: Path) -> None:
    assert problems_of(cluster_file, edited("    region: region-2", "    region: region-9")) == [
        (29, "nodes[2].region", "region-9", "one of `regions`: region-1, region-2")
    ]


@pytest.mark.parametrize("size", [1, 0, -1, 4])
def test_quorum_below_the_majority_or_above_the_cluster(cluster_file: Path, size: int) -> None:
    assert problems_of(cluster_file, edited("quorum_size: 2", f"quorum_size: {size}")) == [
        (3, "quorum_size", str(size), "2 to 3 for 3 nodes; below the majority there can be two primaries")
    ]


def test_two_primaries(cluster_file: Path) -> None:
    text = CLUSTER_YAML.replace("role: secondary", "role: primary", 1)
    [(line, field, value, expected)] = problems_of(cluster_file, text)
    assert (line, field, value) == (19, "nodes[1].role", "primary")
    assert expected.startswith(
        "exactly one primary in an active_passive cluster, and nodes[0] is one already"
    )


def test_two_primaries_of_an_active_active_cluster(cluster_file: Path) -> None:
    text = CLUSTER_YAML.replace("role: secondary", "role: primary", 1) + "deployment: active_active\n"
    found = {(line, field) for line, field, _, _ in problems_of(cluster_file, text)}
    assert found == {
        (8, "nodes[0].weight"),
        (17, "nodes[1].weight"),
        (19, "nodes[1].role"),
        (29, "nodes[2].region"),
    }
    text = CLUSTER_YAML.replace("role: secondary", "role: primary\n    weight: 40")
    home = "role: primary\n    region: region-1"
    text = text.replace(home, home.replace("primary\n", "primary\n    weight: 60\n"), 1)
    lines = text.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if "node-2" in line)
    end = next(i for i, line in enumerate(lines) if "node-3" in line)
    cluster_file.write_text("".join(lines[:start] + lines[end:]) + "deployment: active_active\n")
    assert [share.weight for share in load_cluster(cluster_file).shares] == [60, 40]


def test_no_primary(cluster_file: Path) -> None:
    [(line, field, _, expected)] = problems_of(cluster_file, edited("role: primary", "role: secondary"))
    assert (line, field) == (8, "nodes")
    assert expected == "one of role primary; no node is"


def test_duplicate_id(cluster_file: Path) -> None:
    assert problems_of(cluster_file, edited("node_id: node-3", "node_id: node-1")) == [
        (26, "nodes[2].node_id", "node-1", "an id of its own; nodes[0] already has this one")
    ]


def test_all_problems_of_a_file_at_once_in_the_order_of_its_lines(cluster_file: Path) -> None:
    text = CLUSTER_YAML
    text = edited("quorum_size: 2", "quorum_size: 1", text)
    text = edited("role: primary", "role: boss", text)
    text = edited("    region: region-2\n", "    region: mars\n    site: again\n", text)
    text = edited("    priority: 90\n", "    prioritty: 90\n", text)
    text = edited("    hostname: 10.0.2.10\n", "", text)
    text = edited("capacity: 90.0", "capacity: much", text)
    assert [(line, field) for line, field, _, _ in problems_of(cluster_file, text)] == [
        (3, "quorum_size"),
        (10, "nodes[0].role"),
        (23, "nodes[1].prioritty"),
        (26, "nodes[2].hostname"),
        (28, "nodes[2].region"),
        (30, "nodes[2].site"),
        (33, "nodes[2].capacity"),
    ]


def test_the_text_names_file_line_column_field_value_and_expectation(cluster_file: Path) -> None:
    cluster_file.write_text(edited("capacity: 95.0", "capacity: -95.0"))
    with pytest.raises(ConfigError) as caught:
        load_cluster(cluster_file)
    assert str(caught.value) == (
        f"{cluster_file}:24:15: nodes[1].capacity: found -95.0; expected greater than or equal to 0"
    )


# ---- other fields


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("priority: 100", "priorty: 100", "the field `priority` (there is none of this name)"),
        ("role: primary", "role: leader", "'primary', 'secondary' or 'witness'"),
        ("priority: 100", "priority: yes", "a valid integer"),
        ("priority: 100", 'priority: "100"', "a valid integer"),
        ("site: site-a", "site: no", "a valid string"),
        ("site: site-a", "site:", "a valid string"),
        ("capacity: 100.0", "capacity: .nan", "a finite number"),
        ("hostname: 10.0.1.10", "hostname: [10.0.1.10]", "a valid string"),
    ],
)
def test_single_fields(cluster_file: Path, old: str, new: str, expected: str) -> None:
    [(line, field, value, found_expected)] = problems_of(cluster_file, edited(old, new))
    assert line is not None and 8 <= line <= 15
    assert field == f"nodes[0].{new.split(':')[0]}"
    assert value == {"": "nothing", "[10.0.1.10]": "a list"}.get(
        new.partition(":")[2].strip(), new.split(": ")[-1]
    )
    assert found_expected == expected


def test_a_far_off_field_name_lists_the_fields(cluster_file: Path) -> None:
    [(_, field, _, expected)] = problems_of(cluster_file, CLUSTER_YAML + "replication: {zzz: 1}\n")
    assert field == "replication.zzz"
    assert expected == "one of the fields mode, required_acks"


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        (
            "approval_workflows: {manual_failover: {timeout_secs: 600}}",
            "approval_workflows.manual_failover.timeout_secs",
            "the field `timeout_sec` (there is none of this name)",
        ),
        (
            "approval_workflows: {allowed_roles: {timeout_secs: 600}}",  # a key that is called as a field is
            "approval_workflows.allowed_roles.timeout_secs",
            "the field `timeout_sec` (there is none of this name)",
        ),
        (
            "roles: [{name: r, zzz: 1}]",
            "roles[0].zzz",
            "one of the fields name, permissions, description",
        ),
    ],
)
def test_an_unknown_field_below_a_mapping_or_a_list(
    tmp_path: Path, text: str, field: str, expected: str
) -> None:
    file = tmp_path / "continuity.yaml"
    file.write_text(f"rbac: {{{text}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_rbac(file)
    assert (f"rbac.{field}", expected) in {(one.field, one.expected) for one in caught.value.problems}


def test_missing_field_points_to_where_its_owner_begins(cluster_file: Path) -> None:
    assert problems_of(cluster_file, edited("    site: site-b\n", "")) == [
        (17, "nodes[1].site", "nothing", "a value; the field is required")
    ]


def test_fencing_hook_must_name_the_node(cluster_file: Path) -> None:
    [(_, field, _, expected)] = problems_of(cluster_file, CLUSTER_YAML + "fencing:\n  url: http://h/off\n")
    assert (field, expected) == ("fencing.url", "a URL that contains {node_id} and {state}")


def test_more_nodes_than_a_cluster_may_have(cluster_file: Path) -> None:
    nodes = [{"node_id": "node-0", "role": "primary"}]
    nodes += [{"node_id": f"node-{n}", "role": "secondary"} for n in range(1, MOST_NODES + 1)]
    where = {"hostname": "h", "region": "region-1", "site": "s"}
    topology = {**yaml.safe_load(CLUSTER_YAML), "quorum_size": None}
    cluster_file.write_text(yaml.safe_dump({**topology, "nodes": [{**one, **where} for one in nodes[:-1]]}))
    assert len(load_cluster(cluster_file).nodes) == MOST_NODES
    text = yaml.safe_dump({**topology, "nodes": [{**one, **where} for one in nodes]})
    [(_, field, value, expected)] = problems_of(cluster_file, text)
    assert (field, value, expected) == ("nodes", "a list", f"at most {MOST_NODES} entries")


def test_a_list_of_what_is_allowed_fills_no_answer(cluster_file: Path) -> None:
    listed = "".join(f"  - region-{n}\n" for n in range(1, 900))
    text = edited("    region: region-2", "    region: mars").replace("  - region-1\n  - region-2\n", listed)
    [(_, field, _, expected)] = problems_of(cluster_file, text)
    assert field == "nodes[2].region"
    assert expected.startswith("one of `regions`: region-1, region-2, ") and expected.endswith(" …")
    assert len(expected) < 2 * LONGEST_LIST


def test_nodes_that_are_all_wrong_are_not_also_too_few(cluster_file: Path) -> None:
    text = "cluster_id: c\nname: C\nregions: [r]\nnodes: [5, 6]\n"
    assert [(field, expected) for _, field, _, expected in problems_of(cluster_file, text)] == [
        ("nodes[0]", "a mapping"),
        ("nodes[1]", "a mapping"),
    ]
    [(_, field, _, expected)] = problems_of(cluster_file, text.replace("[5, 6]", "[]"))
    assert (field, expected) == ("nodes", "at least 1 entry")


# ---- files as a whole


def test_repeated_keys_are_errors(cluster_file: Path) -> None:
    text = edited("    priority: 90\n", "    priority: 90\n    priority: 91\n")
    assert problems_of(cluster_file, text) == [
        (24, "nodes[1].priority", "it a second time", "it once; line 23 has it already")
    ]


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("2026-13-45", "month must be in 1..12"),
        ("!!int many", "invalid literal for int() with base 10: 'many'"),
        ("!!bool maybe", "'maybe'"),
    ],
)
def test_a_scalar_that_yaml_cannot_make_a_value_of_is_named(
    cluster_file: Path, written: str, why: str
) -> None:
    name = next(line for line in CLUSTER_YAML.splitlines() if line.startswith("name: "))
    found = problems_of(cluster_file, edited(name, f"name: {written}"))
    assert (2, "name", written.split()[-1], f"a value that there is ({why})") in found


def test_keys_that_yaml_would_turn_into_something_else_keep_their_name(cluster_file: Path) -> None:
    assert [(p[0], p[1]) for p in problems_of(cluster_file, CLUSTER_YAML + "on: 1\n7: x\n")] == [
        (34, "on"),
        (35, "7"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "value", "expected"),
    [
        ("", None, "an empty file", "a YAML mapping"),
        ("# only a comment\n", None, "an empty file", "a YAML mapping"),
        ("- a\n- b\n", 1, "a list", "a YAML mapping (`field: value` lines)"),
        ("cluster_id: [c\nname: C\n", 2, "`name: C`", "valid YAML (expected ',' or ']', but got ':')"),
        ("a: 1\n---\nb: 2\n", 2, "`---`", "valid YAML (but found another document)"),
        ("a: *nobody\n", 1, "`a: *nobody`", "valid YAML (found undefined alias 'nobody')"),
        (b"a: \xff\n", 1, "the byte 0xff", "UTF-8 text"),
        (b"a: 1\nb: \x07\n", 2, "the character U+0007", "printable characters"),
    ],
)
def test_files_that_are_no_mapping(
    cluster_file: Path, text: str | bytes, line: int | None, value: str, expected: str
) -> None:
    assert problems_of(cluster_file, text) == [(line, "", value, expected)]


def test_an_alias_inside_what_it_names(cluster_file: Path) -> None:
    found = problems_of(cluster_file, CLUSTER_YAML + "vantages: &v [*v]\n")
    assert (34, "vantages[0]", "an alias inside what it names", "a value") in found


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nowhere.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load_policy(path)
        [problem] = caught.value.problems
        assert why in problem.value
        assert str(problem).startswith(f"{path}: found no readable file")


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_any_content_gives_a_cluster_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    with pytest.raises(ConfigError) as caught:
        load_cluster(file)
    assert caught.value.problems


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | leaves, inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(CLUSTER_YAML.splitlines()[2:]).filter(lambda line: ":" in line), trees)
def test_any_value_of_any_field_gives_a_cluster_or_a_problem_within_the_file(
    tmp_path_factory: pytest.TempPathFactory, line: str, value: object
) -> None:
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").rstrip()
    file.write_text(CLUSTER_YAML.replace(line, f"{line.split(':')[0]}: {text}", 1))
    try:
        load_cluster(file)
    except ConfigError as error:
        last = len(file.read_text().splitlines()) + 1
        assert all(p.line is not None and 1 <= p.line <= last for p in error.problems)


# ---- registry and shipped folders


def write(folder: Path, cluster_id: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cluster.yaml").write_text(CLUSTER_YAML.replace("prod-cluster", cluster_id))
    (folder / "policy.yaml").write_text(POLICY_YAML)


def test_registry_lists_and_loads_anew(tmp_path: Path) -> None:
    write(tmp_path, "main")
    write(tmp_path / "clusters" / "east", "east")
    registry = Registry(tmp_path)
    assert registry.cluster_ids() == ["east", "main"]
    assert registry.load("east").cluster.cluster_id == "east"
    assert registry.load("main").policy.strategy is Strategy.AUTOMATIC
    (tmp_path / "policy.yaml").write_text(POLICY_YAML.replace("strategy: automatic", "strategy: manual"))
    assert registry.load("main").policy.strategy is Strategy.MANUAL


def test_registry_knows_each_region_of_an_active_active_cluster_as_a_lease_group(tmp_path: Path) -> None:
    nodes = [
        node("a", "primary", "eu", weight=60), node("b", region="eu"), node("c", "primary", "us", weight=40)
    ]  # fmt: skip
    whole = cluster(*nodes, cluster_id="shop", deployment="active_active")
    folder = tmp_path / "clusters" / "shop"
    folder.mkdir(parents=True)
    (folder / "cluster.yaml").write_text(
        yaml.safe_dump(whole.model_dump(mode="json", exclude_none=True), sort_keys=False)
    )
    (folder / "policy.yaml").write_text(POLICY_YAML)
    registry = Registry(tmp_path)
    assert registry.cluster_ids() == ["shop"]
    assert registry.load("shop-eu").cluster == whole.lease_group("eu")
    assert registry.load("shop-us").policy == registry.load("shop").policy
    with pytest.raises(ConfigError, match="one of the clusters here: shop"):
        registry.load("shop-ap")


def test_registry_names_the_clusters_it_has(tmp_path: Path) -> None:
    write(tmp_path, "main")
    for unknown in ("other", "../main", ""):
        with pytest.raises(ConfigError, match="one of the clusters here: main"):
            Registry(tmp_path).load(unknown)


def test_a_folder_must_be_named_for_its_cluster(tmp_path: Path) -> None:
    write(tmp_path / "clusters" / "east", "west")
    with pytest.raises(ConfigError, match="found west; expected east, as the folder is named"):
        Registry(tmp_path).load("east")


def test_one_id_in_two_places_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "east")
    write(tmp_path / "clusters" / "east", "east")
    with pytest.raises(ConfigError, match=r"found east; expected an id that .*clusters/east does not have"):
        Registry(tmp_path).cluster_ids()


def test_another_clusters_broken_file_does_not_stand_in_the_way(tmp_path: Path) -> None:
    write(tmp_path, "main")
    write(tmp_path / "clusters" / "east", "east")
    (tmp_path / "cluster.yaml").write_text("nodes: [\n")
    assert Registry(tmp_path).load("east").cluster.cluster_id == "east"


def test_an_empty_registry_says_which_file_it_wants(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.yaml: found no readable file"):
        Registry(tmp_path).cluster_ids()


def test_shipped_folders_are_found_from_any_working_directory(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from qnwis.config.shipped import shipped; print(shipped('config'))"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(shipped("config").parent / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (Path(run.stdout.strip()) / "continuity" / "cluster.yaml").is_file()


def test_an_unknown_shipped_folder_names_both_places() -> None:
    with pytest.raises(FileNotFoundError, match=r"_shipped/nothing and .*nothing"):
        shipped("nothing")


def test_problem_without_a_line_reads_well() -> None:
    assert str(Problem(Path("f"), None, None, "", "nothing", "a file")) == "f: found nothing; expected a file"


def test_models_without_a_file_name_the_field_too() -> None:
    """The same rules guard a topology that comes in as JSON."""
    with pytest.raises(ValueError, match=r"nodes\.1\.node_id\n  expected an id of its own"):
        Cluster.model_validate(
            {**yaml.safe_load(CLUSTER_YAML), "nodes": [NODE, NODE | {"role": "secondary"}]}
        )


NODE = {"node_id": "a", "hostname": "h", "role": "primary", "region": "region-1", "site": "s"}
