"""Directives that show tables of the program, so that the documentation cannot drift from it."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pman.job.state import TRANSITIONS


class States(SphinxDirective):
    """`.. pman-states::` shows which state of a job may follow which."""

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - from", "     - to"]
        for old, after in TRANSITIONS.items():
            names = [new.value for new in type(old) if new in after]
            lines += [f"   * - {old.value}", f"     - {', '.join(names) or '(final)'}"]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("pman-states", States)
    return {"parallel_read_safe": True}
