"""`docs/benchmarks.md`: a bench replaces its own section and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.document import TITLE, replaced, write_section


def test_a_section_is_replaced_and_the_rest_left(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    write_section(path, "make bench-a", ["## A", "old", ""])
    write_section(path, "make bench-b", ["## B", "stays"])
    path.write_text(path.read_text() + "\n## By hand\n\nstays as well\n")
    write_section(path, "make bench-a", ["## A", "new"])
    written = path.read_text()
    assert written.startswith(f"{TITLE}\n\n<!-- written by `make bench-a` -->\n\n## A\n\nnew\n")
    assert "old" not in written and written.count("## A") == 1
    assert "## B\n\nstays\n\n<!-- end" in written and written.endswith("## By hand\n\nstays as well\n")


def test_a_document_with_half_a_section_is_not_written() -> None:
    with pytest.raises(ValueError, match="both"):
        replaced("<!-- end of `make bench-a` -->", "make bench-a", "## A")
