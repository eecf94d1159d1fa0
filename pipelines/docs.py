"""Tables in docs/ that come from the code, and checks that the docs point at things that exist.

`python -m pipelines.docs` writes the tables again; `--check` fails if that would change anything, or if a link
or an `esmm` command named in the docs does not exist.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from components.contracts.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)|src=\"(?P<image>[^\"]+)\"")
COMMAND = re.compile(r"\besmm(?: --[a-z-]+ \S+)* (?P<first>[a-z-]+)(?: (?P<second>[a-z-]+))?")


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; pipes inside cells are escaped."""
    header, cells = list(header), [[str(cell) for cell in row] for row in rows]
    assert all(len(row) == len(header) for row in cells), "every row needs a cell a column"
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def gates() -> str:
    from components.evaluation.gates import gates_table

    return gates_table()


def rules() -> str:
    from components.validation.suite import rules_table

    return table(("reason", "scope", "rule"), rules_table())


def refusals() -> str:
    from components.ingestion.sources.refused import REASONS

    return table(("reason", "what is refused"), REASONS.items())


def ali_ccp_refusals() -> str:
    from components.ingestion.sources.ali_ccp_format import REASONS

    return table(("reason", "what is refused"), REASONS.items())


def attribution() -> str:
    from components.ingestion.sources.attribution import RULES

    return table(("what", "what becomes of it"), RULES)


def drift() -> str:
    from components.validation.drift import measures_table

    return table(("measure", "of", "what is compared", "limit (default)"), measures_table())


def features() -> str:
    from components.features.catalog import summary

    return table(("feature", "view", "type", "encoding"), summary())


def feature_reference() -> str:
    from components.features.catalog import reference

    return reference(table)


def recipes() -> str:
    from pipelines.recipes import RECIPES

    return table(("recipe", "for"), ((f"`{n}`", (f.__doc__ or "").strip().split("\n")[0]) for n, f in RECIPES.items()))


def commands() -> str:
    return table(("command", "what it does"), ((f"`esmm {n}`", text) for n, text in _commands()))


def errors() -> str:
    from components.contracts import errors as module

    tree = (module.__doc__ or "").split("\n\n")[1]
    return "```\n" + tree.replace("    ", "", 1) + "\n```\n"


GENERATORS: dict[str, Callable[[], str]] = {
    "gates": gates,
    "rules": rules,
    "refusals": refusals,
    "ali-ccp-refusals": ali_ccp_refusals,
    "attribution": attribution,
    "drift": drift,
    "features": features,
    "feature-reference": feature_reference,
    "recipes": recipes,
    "commands": commands,
    "errors": errors,
}


def _commands() -> list[tuple[str, str]]:
    from pipelines.cli import main

    found = []
    for name, command in sorted(main.commands.items()):
        if isinstance(command, click.Group):
            found += [(f"{name} {n}", c.get_short_help_str(100)) for n, c in sorted(command.commands.items())]
        else:
            found.append((name, command.get_short_help_str(100)))
    return found


def regenerate(text: str) -> str:
    """The text with every generated block filled anew. Raises KeyError for a block nobody generates."""
    return BLOCK.sub(lambda m: m.group(1) + GENERATORS[m["name"]]() + m.group(3), text)


def broken(path: Path, text: str) -> list[str]:
    """Sentences about links to files that do not exist and commands that `esmm` does not have."""
    problems = []
    for match in LINK.finditer(text):
        target = match["target"] or match["image"]
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
            problems.append(f"{path.relative_to(ROOT)}: link to {target}, which does not exist")
    names = {name for name, _ in _commands()}
    firsts = {name.split()[0] for name in names}
    code = "\n".join(
        re.findall(r"```(?:console|bash|sh)\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    )
    for match in COMMAND.finditer(code):
        first, both = match["first"], f"{match['first']} {match['second']}"
        if first not in firsts or (first not in names and match["second"] and both not in names):
            problems.append(f"{path.relative_to(ROOT)}: command `esmm {first}` does not exist")
    return problems


def main(check: bool) -> int:
    """Writes (or, with `check`, compares) all generated blocks; returns the exit code."""
    problems: list[str] = []
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        new = regenerate(text)
        if new != text and check:
            problems.append(f"{path.relative_to(ROOT)}: generated tables are out of date, run `make docs`")
        elif new != text:
            write_text(path, new)
            print(f"wrote {path.relative_to(ROOT)}")
        problems += broken(path, new)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
