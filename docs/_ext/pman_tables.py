"""Directives that show tables of the program, so that the documentation cannot drift from it."""

from __future__ import annotations

import itertools

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pman.job.state import RETRY_TRANSITIONS, TRANSITIONS
from pman.options import OPTIONS, SHOW_OPTIONS, Option


class Options(SphinxDirective):
    """`.. pman-options::` shows every option, by its group."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for group, options in itertools.groupby(OPTIONS, lambda option: option.group):
            lines += [group, "-" * len(group), "", *map(_describe, options)]
        title = "Texts"
        lines += [title, "-" * len(title), "", *map(_describe, SHOW_OPTIONS)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _describe(option: Option) -> str:
    flags = ", ".join(f"``{flag} {option.metavar}".strip() + "``" for flag in _flags(option))
    facts = [option.help.replace("*", "\\*")]
    if option not in SHOW_OPTIONS:
        also = f", as in 2.2 also ``{option.old_variable}``" if option.old_variable else ""
        facts.append(f"Variable: ``{option.variable}``{also}.")
        if option.shown_default:
            facts.append(f"Default: {option.shown_default}.")
    return f"{flags}\n   {' '.join(facts)}\n"


def _flags(option: Option) -> tuple[str, ...]:
    return (*option.aliases, option.flag)


class OptionTable(SphinxDirective):
    """`.. pman-option-table:: GROUP, GROUP` shows the options of some groups as one table."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        groups = [name.strip() for name in self.arguments[0].split(",")]
        missing = set(groups) - {option.group for option in OPTIONS}
        if missing:
            raise self.error(f"no option has the group {', '.join(sorted(missing))}")
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 20 20 45 15", ""]
        lines += _row("flag", "variable", "meaning", "default")
        for option in OPTIONS:
            if option.group in groups:
                variables = [option.variable, *filter(None, [option.old_variable])]
                lines += _row(
                    f"``{option.flag}``",
                    ", ".join(f"``{name}``" for name in variables),
                    option.help.replace("*", "\\*"),
                    option.shown_default.replace("*", "\\*") or "none",
                )
        return self.parse_text_to_nodes("\n".join(lines))


def _row(*cells: str) -> list[str]:
    return [f"   {'*' if index == 0 else ' '} - {cell}" for index, cell in enumerate(cells)]


class States(SphinxDirective):
    """`.. pman-states::` shows which state of a job may follow which."""

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", ""]
        lines += _row("from", "to", "to, when it is tried again")
        for old, after in TRANSITIONS.items():
            again = RETRY_TRANSITIONS.get(old, frozenset())
            names = [", ".join(new.value for new in type(old) if new in s) for s in (after, again)]
            lines += _row(old.value, names[0] or "(final)", names[1] or "(never)")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("pman-options", Options)
    app.add_directive("pman-option-table", OptionTable)
    app.add_directive("pman-states", States)
    return {"parallel_read_safe": True}
