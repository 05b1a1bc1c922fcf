"""`docs/reference/configuration.md`: every file, field by field, read off the models that load it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from qnwis.agent.config import AgentConfig
from qnwis.config.api import ApiFile
from qnwis.continuity.access import Issuers, People, RbacFile
from qnwis.continuity.allowlist import Allowlist
from qnwis.continuity.hooks_file import HooksFile
from qnwis.continuity.notifications import Channels
from qnwis.continuity.policy import Policy
from qnwis.continuity.regions import RegionRules
from qnwis.continuity.service_tokens import ServiceTokens
from qnwis.continuity.topology import Cluster
from qnwis.montecarlo.world import World

from .commands import commands
from .fields import all_models, anchor, field_table, meanings, schema_of
from .markdown import cell, code, paragraphs, table

PROJECT = Path(__file__).parents[2]


class File(NamedTuple):
    name: str
    model: type[BaseModel]
    about: str


FILES = (
    File(
        "cluster.yaml",
        Cluster,
        "The topology of one cluster, in the registry's folder or in `clusters/<id>/`.",
    ),
    File("policy.yaml", Policy, "The limits within which its failover may run. Beside `cluster.yaml`."),
    File(
        "regions.yaml",
        RegionRules,
        "When a region counts as lost, and how its clusters leave it. One for all.",
    ),
    File(
        "hooks.yaml", HooksFile, "What is called around the steps of a run, and when the service is steady."
    ),
    File("notifications.yaml", Channels, "Whom runs tell."),
    File("people.yaml", People, "Who may do what, and by which key they prove it."),
    File("issuers.yaml", Issuers, "Who may vouch for people."),
    File(
        "api.yaml",
        ApiFile,
        "Who signs in to the HTTP API, its limits, and which alerts are about which cluster.",
    ),
    File(
        "service-tokens.yaml",
        ServiceTokens,
        "Hashes of service tokens; written by `tokens issue` and `tokens revoke`.",
    ),
    File("allowlist.yaml", Allowlist, "Which certificates are whose; made by `pki`."),
    File("rbac/continuity.yaml", RbacFile, "Roles, their permissions, and the approval workflows."),
    File(
        "simulator/lab.yaml",
        World,
        "A world for `simulate --runs`; every file of that folder has these fields, and so has one of yours.",
    ),
    File("agent.yaml", AgentConfig, "What one agent is told. It is on the node, under any name."),
)


def configuration_page() -> str:
    parts = [
        "# Configuration\n\n",
        "A field's name says its unit: `_s` and `_sec` are seconds, `_ms` milliseconds, `_bytes` bytes,"
        " `_percent` hundredths. Unknown fields are refused, with the file, the line and the field;"
        " [`validate`](commands.md#validate) checks the files of a cluster without using them. Where a type"
        " is linked, its fields stand in the section of that name.\n\n",
        table(("file", "what it is"), ((f"[`{f.name}`](#{anchor(f.name)})", cell(f.about)) for f in FILES)),
    ]
    told: dict[str, type[BaseModel]] = {}
    for file in FILES:
        parts += [f"## {file.name}\n\n", f"{file.about}\n\n"]
        whole, models = schema_of(file.model), all_models(file.model)
        # Models of two files may have one name.
        titles = {
            name: f"{name} of {file.name}" for name, one in models.items() if told.get(name, one) is not one
        }
        for name, model in models.items():
            if told.get(name) is model:
                continue
            told.setdefault(name, model)
            schema = whole if model is file.model else whole["$defs"][name]
            parts += [f"### {titles.get(name, name)}\n\n", paragraphs(model.__doc__ or "")]
            parts.append(field_table(schema, whole, meanings(model), titles))
    return "".join([*parts, "## Environment variables\n\n", _variables()])


def _variables() -> str:
    """Those of this project: named by an option of a command, or by a constant."""
    rows: dict[str, tuple[str, str]] = {}
    for path in sorted((PROJECT / "src" / "qnwis").rglob("*.py")):
        body = ast.parse(path.read_text()).body
        for line, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
                value = line.value.value
                if isinstance(value, str) and value.startswith("QNWIS_") and value != "QNWIS_":
                    doc = after.value if isinstance(after, ast.Expr) else None
                    text = str(doc.value) if isinstance(doc, ast.Constant) else ""
                    source = path.relative_to(PROJECT)
                    rows[value] = (cell(text), f"[`{path.name}`](../../{source})")
    options: dict[str, tuple[str, set[str]]] = {}
    for name, command in commands():
        for one in command.params:
            if isinstance(one.envvar, str) and one.envvar.startswith("QNWIS_"):
                options.setdefault(one.envvar, (one.help or "", set()))[1].add(name.split()[0])
    for variable, (text, of) in options.items():
        rows.setdefault(variable, (cell(text), ", ".join(code(name) for name in sorted(of))))
    return (
        "Where an option of a command may come from the environment, [the commands](commands.md) say so. "
        "`TEMPORAL_ADDRESS` and the other variables of Temporal's own clients are read as every "
        "Temporal client reads them.\n\n"
        + table(("variable", "meaning", "read by"), ((code(name), *rows[name]) for name in sorted(rows)))
    )
