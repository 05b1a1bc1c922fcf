"""What the documents say of the repository is there, and what they tell to type is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qnwis.agent.config import load_config
from qnwis.agent.settings import owned_settings
from qnwis.config.hooks import load_hooks
from qnwis.config.load import load_cluster
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import VoteRequest
from qnwis.continuity.hooks import HookContext
from qnwis.continuity.losses import Effect, losses
from qnwis.continuity.policy import Policy
from qnwis.continuity.run import FailoverRequest
from qnwis.continuity.weights import without
from tests.documents.configuration import FILES
from tests.documents.reference import PAGES as MADE
from tests.documents.reference import page_of
from tests.documents.typed import Typed, commands_on, make_targets_on, wrong_with
from workflows.names import RUNBOOKS_QUEUE, failover_id
from workflows.planned_maintenance import PlannedMaintenance

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "SECURITY.md", *sorted((PROJECT / "docs").rglob("*.md"))]
RUNBOOKS = sorted((PROJECT / "runbooks").glob("*.md"))
WRITTEN = [page for page in (*PAGES, *RUNBOOKS) if page not in {PROJECT / "docs" / name for name in MADE}]
"""By hand."""
TESTS = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text()))
    assert {name for name in named if f"def {name}(" not in TESTS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = set(re.findall(r"\]\(([^)#:]+)\)", page.read_text()))
    assert {link for link in links if not (page.parent / link).exists()} == set()


def test_every_picture_is_on_a_page() -> None:
    shown = {
        name for page in PAGES for name in re.findall(r"!\[[^]]+\]\(\S*images/(\S+)\)", page.read_text())
    }
    assert {path.name for path in (PROJECT / "docs" / "images").iterdir()} == shown


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_command_a_page_tells_to_type_is_taken(page: Path) -> None:
    wrong = {typed.words: wrong_with(typed) for typed in commands_on(page.read_text())}
    assert {words: why for words, why in wrong.items() if why is not None} == {}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("plan --cluster a --policy b --speed 3", "no option --speed"),
        ("plan --cluster a", "needs --policy"),
        ("region leave region-1", "no command leave"),
        ("approve lab-1 lab-2", "takes 1 arguments"),
        ("report RUN --output", "--output needs a value"),
        ("plan --cluster a …", None),
        ("report latest --output report.html  # a page", None),
    ],
)
def test_what_would_not_be_taken_is_found(words: str, why: str | None) -> None:
    found = wrong_with(Typed(words, whole=True))
    assert found is None if why is None else found is not None and why in found


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_make_target_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    assert make_targets_on(page.read_text()) - targets == set()


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_file_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`((?:src|tests|docs|workflows|activities|workers)/[\w./-]+)`", page.read_text()))
    assert {name for name in named if not (PROJECT / name).exists()} == set()


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_from_the_code_is_as_the_code_makes_it(name: str) -> None:
    assert (PROJECT / "docs" / name).read_text() == page_of(name), "make reference"


def test_every_file_of_the_configuration_has_its_fields_on_the_page() -> None:
    worlds = "simulator"  # several of one kind
    files = [path for path in (PROJECT / "config").rglob("*.yaml") if path.parent.name != worlds]
    shipped = {path.name.replace(".example", "") for path in files}
    assert shipped <= {file.name.rpartition("/")[2] for file in FILES}


def test_the_hooks_to_paste_are_what_a_worker_takes(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "howto" / "hooks.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "hooks.yaml").write_text(block)
    file = load_hooks(tmp_path / "hooks.yaml")
    assert len(file.hooks) == 3 and len(file.steady_state) == 2
    names = {*HookContext.model_fields, "idempotency_key"}
    assert {
        name for name in names if f"`QNWIS_{name.upper()}`" not in page or f"`{name}`" not in page
    } == set()


def test_the_agents_file_to_paste_is_what_an_agent_takes(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "howto" / "adopting-postgresql.md").read_text()
    (tmp_path / "agent.yaml").write_text("".join(re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)))
    config = load_config(tmp_path / "agent.yaml")
    assert config.database is not None and config.backup is not None
    # A first member is made before systemd makes the folder.
    made, then = f"install -d -o postgres -g postgres {config.state_dir}\n", "agent.yaml --new-cluster\n"
    assert -1 < page.find(made) < page.find(then)
    owned = owned_settings(config, config.database, ("db-2", "db-3"), 1)
    # What the page does not name one by one is how soon a broken stream is noticed.
    unnamed = {name for name in owned if f"`{name}`" not in page}
    assert len(unnamed) == 4 and all(name.startswith("wal_") for name in unnamed), unnamed


def test_the_shipped_hooks_for_pgbouncer_are_what_a_worker_takes() -> None:
    file = load_hooks(PROJECT / "deploy" / "pgbouncer" / "hooks.yaml")
    assert [(hook.before, hook.after) for hook in file.hooks] == [("execution", None), (None, "execution")]


def test_the_active_active_topology_to_paste_is_valid_and_survives_what_the_page_says(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "howto" / "active-active.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "cluster.yaml").write_text(block)
    topology = load_cluster(tmp_path / "cluster.yaml")
    effects = {loss.what: loss.effect for loss in losses(topology)}
    assert effects["region us"] is Effect.SHIFTS and effects["region eu"] is Effect.STOPS
    assert effects["eu-1"] is Effect.FAILS_OVER
    assert "`us` has room for 40 of its 60" in page and "room for 40" in str(without(topology.shares, "eu"))
    assert [topology.lease_group(region).cluster_id for region in topology.regions] == ["shop-eu", "shop-us"]
    assert "`shop-eu` and `shop-us`" in page and list(
        Policy.model_fields["return_steps_percent"].default
    ) == [int(step) for step in re.findall(r"\(10, 50, 100\)", page)[0].strip("()").split(", ")]


def test_the_json_to_paste_is_what_the_workflow_and_the_signal_take() -> None:
    page = (PROJECT / "docs" / "howto" / "maintenance-from-the-ui.md").read_text()
    start, approve = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)

    request = FailoverRequest.model_validate_json(start)
    assert request.maintenance is not None and request.token is not None
    assert VoteRequest.model_validate_json(approve).token.claim.deed is Deed.APPROVE
    assert f"`{failover_id(request.cluster_id)}`" in page
    assert f"`{RUNBOOKS_QUEUE}`" in page and f"`{PlannedMaintenance.__name__}`" in page
