"""The arrows between modules point one way, modules stay small, and the library never prints."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import embedindex

PACKAGE = Path(embedindex.__file__).parent
MAX_LINES = 400
LONGER: dict[str, int] = {}  # modules that may be longer, and how long

# From the bottom up: a module imports from its own layer and from those below. What is not named here is a feature
# (scan, search, labels…), which lies between the index and the command line.
LAYERS: tuple[tuple[str, set[str]], ...] = (
    (
        "ground",
        {
            "errors",
            "arrays",
            "locations",
            "schema",
            "mel",
            "descriptors",
            "quiet",
            "child_process",
            "messages",
            "remote_paths",
            "syncing",
            "cores",
            "whole_files",
        },
    ),
    (
        "sound",
        {
            "temporary",
            "slow_answers",
            "remote_server",
            "remote",
            "opening",
            "file_stat",
            "archive_members",
            "archives",
            "seeking",
            "decoders",
            "audio",
            "tags",
            "ignore",
            "crawl",
            "windows",
            "models.base",
        },
    ),
    ("models", {"models", "embed"}),
    ("store", {"database", "records", "store", "copies", "stored_vectors", "lock", "writer"}),
    (
        "index",
        {
            "space",
            "index_blocks",
            "index_file",
            "index_plan",
            "index_lists",
            "index_build",
            "index_centres",
            "index",
            "index_refresh",
        },
    ),
    ("features", set()),
    ("command line", {"cli", "web", "__main__"}),
)
NAMES = [name for name, _ in LAYERS]


def modules() -> dict[str, ast.Module]:
    """Return every module of the package by its name without ``embedindex.``, parsed."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def imports_of(tree: ast.Module) -> set[str]:
    """Return the modules of this package that a module imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            if node.module == "embedindex":
                found.update(alias.name for alias in node.names if alias.name in MODULES)
            elif node.module is not None and node.module.startswith("embedindex."):
                module = node.module.removeprefix("embedindex.")
                below = {f"{module}.{alias.name}" for alias in node.names}
                found.update(below & MODULES.keys() or {module})
        elif isinstance(node, ast.Import):
            found.update(
                alias.name.removeprefix("embedindex.") for alias in node.names if alias.name.startswith("embedindex.")
            )
    return found


ARROWS = {name: imports_of(tree) for name, tree in MODULES.items() if name != "__init__"}


def layer_of(module: str) -> int:
    """Return the number of a module's layer, 0 at the bottom; a package's modules lie where the package lies."""
    for name in (module, module.partition(".")[0]):
        for number, (_, members) in enumerate(LAYERS):
            if name in members:
                return number
    return NAMES.index("features")


def test_every_module_named_in_a_layer_is_there() -> None:
    named = {name for _, members in LAYERS for name in members} - {"web"}  # web is to come
    assert named <= MODULES.keys()


def test_imports_are_found() -> None:
    assert {"store", "index", "query", "errors"} <= ARROWS["search"]
    assert "search" in ARROWS["cli.similar"]  # inside a function
    assert "models.base" in ARROWS["embed"]


@pytest.mark.parametrize("module", ARROWS)
def test_imports_point_down(module: str) -> None:
    own = layer_of(module)
    upwards = {other for other in ARROWS[module] if layer_of(other) > own}
    assert not upwards, f"{module} ({NAMES[own]}) imports {', '.join(sorted(upwards))}"


def test_nothing_imports_in_circles() -> None:
    try:
        list(TopologicalSorter(ARROWS).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_command_line_is_imported_by_nobody_but_main() -> None:
    users = {name for name, used in ARROWS.items() if any(other.split(".")[0] == "cli" for other in used)}
    assert {name for name in users if name.split(".")[0] != "cli"} == {"__main__"}


@pytest.mark.parametrize("module", [name for name in MODULES if layer_of(name) < NAMES.index("command line")])
def test_library_never_prints(module: str) -> None:
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Name):
            assert node.id != "print", f"{module} prints in line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("stdout", "exit"), f"{module} uses sys.{node.attr} in line {node.lineno}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short_and_say_what_they_are_for(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGER.get(name, MAX_LINES)
    assert ast.get_docstring(ast.parse(text)), "the first lines say what it is for"
