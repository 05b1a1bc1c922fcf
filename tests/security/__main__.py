"""`make security`: bandit, pip-audit and detect-secrets. Exits 0 only where nothing is left to be fixed or
justified ([tool.qnwis-security] of pyproject.toml)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .justified import Finding, load_justified, open_findings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CODE = ("src", "workflows", "activities", "workers")
LOCK = "requirements/lock.txt"
NO_SECRETS = (LOCK, "tests/histories/")
"""Hashes of packages, and recorded histories: nothing but long random texts, each looked at by its own test
(`test_a_history_tells_nothing_of_the_machine_that_recorded_it`)."""


ANSWERS_WITHIN_S = 90.0
"""How long the data of known vulnerabilities may take, of all packages."""


def main() -> int:
    found = [*bandit(), *secrets()]
    checks = {one.check for one in found} | {one.check for one in JUSTIFIED if one.check != "pip-audit"}
    audited = packages()
    if audited is None:
        print(f"pip-audit: skipped, its data cannot be reached from here within {ANSWERS_WITHIN_S:.0f} s")
    else:
        found += audited
        checks.add("pip-audit")
    left = open_findings(found, JUSTIFIED, checks)
    for line in left:
        print(line)
    print(f"{len(found)} findings, {len(found) - len(left)} of them justified" if not left else "not secure")
    return 1 if left else 0


def bandit() -> list[Finding]:
    told = _json(BIN / "bandit", "-q", "-c", "pyproject.toml", "-r", *CODE, "-f", "json")
    assert not told["errors"], told["errors"]
    return [
        Finding(
            check=one["test_id"],
            file=one["filename"].removeprefix("./"),
            says=f"line {one['line_number']}: {one['issue_text']}",
        )
        for one in told["results"]
    ]


def secrets() -> list[Finding]:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in tracked.splitlines() if not name.startswith(NO_SECRETS)]
    told = _json(BIN / "detect-secrets", "scan", "--no-verify", *files)  # no candidate leaves the machine
    return [
        Finding(check=one["type"], file=file, says=f"line {one['line_number']} looks like a secret")
        for file, ones in told["results"].items()
        for one in ones
    ]


def packages() -> list[Finding] | None:
    """None where the data of known vulnerabilities cannot be reached."""
    asked = ("--disable-pip", "--require-hashes", "-r", LOCK, "-f", "json")
    try:
        done = _run(BIN / "pip-audit", *asked, timeout_s=ANSWERS_WITHIN_S)
    except subprocess.TimeoutExpired:
        return None
    if not done.stdout.strip():
        if not any(
            word in done.stderr for word in ("ConnectionError", "ServiceError", "HTTPError", "Timeout")
        ):
            raise SystemExit(f"pip-audit failed: {done.stderr[-2000:]}")
        return None
    return [
        Finding(
            check="pip-audit", file=f"{one['name']} {one['version']}", says=f"{bug['id']}, fixed in {fixed}"
        )
        for one in json.loads(done.stdout)["dependencies"]
        for bug in one.get("vulns", ())
        for fixed in [", ".join(bug["fix_versions"]) or "no version yet"]
    ]


def _json(*command: str | Path) -> dict[str, Any]:
    done = _run(*command)
    if not done.stdout.strip():
        raise SystemExit(f"{command[0]} failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _run(*command: str | Path, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    texts = [*map(str, command)]
    return subprocess.run(texts, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)


JUSTIFIED = load_justified(ROOT / "pyproject.toml")

if __name__ == "__main__":
    sys.exit(main())
