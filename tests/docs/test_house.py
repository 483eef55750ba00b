"""The house stands as it is drawn: file sizes, no forbidden names, imports one way and late."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "repsim").rglob("*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in SOURCES}
HEAVY = ("torch", "transformers", "scipy", "sklearn", "matplotlib", "pyarrow", "pandas", "pydantic")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_has_become_two_rooms(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_function_and_class_is_documented_and_annotated(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} does not say what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert node.returns is not None, f"{node.name} has no return annotation"


def _imports(path: Path) -> set[str]:
    """Modules that a file names: imports at any depth, and "module:attribute" strings."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= below & MODULES.keys() or {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(
            r"repsim(\.\w+)+(:\w+)?", str(node.value)
        ):
            name = str(node.value).partition(":")[0]
            # A package's own name in a string says where its data files lie.
            if not _module(path).startswith(f"{name}."):
                names.add(name)
    return names


def test_no_file_imports_a_file_that_imports_it() -> None:
    graph = {name: (_imports(path) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle of files: " + " -> ".join(error.args[1]))


def test_names_in_strings_keep_the_direction_of_imports() -> None:
    floors = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = floors["tool"]["importlinter"]["contracts"][0]
    level = {
        name.strip(): number
        for number, line in enumerate(contract["layers"])
        for name in line.split("|")
    }
    upward = [
        f"{_module(path)} names {name}"
        for path in SOURCES
        for name in _imports(path)
        if (here := level.get(".".join(_module(path).split(".")[:2]))) is not None
        and (there := level.get(".".join(name.split(".")[:2]))) is not None
        and there < here
    ]
    assert not upward


def test_no_room_is_called_utils() -> None:
    assert not [p for p in SOURCES if p.stem in {"utils", "util", "helpers", "misc"}]


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from repsim.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FIGURES = """
import repsim.plots as p
from repsim.testing.tables import synthetic_table
t = synthetic_table({'a': 2, 'b': 2}, languages=('eng_Latn',))
for name in p.FIGURES: p.FIGURES[name]
for name in ('layers', 'heatmap', 'ladder'): p.FIGURES[name].info(t)
"""
READING = "from repsim.corpora import load_training_text as load; t = load('bible', ['eng_Latn'], "


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import repsim", HEAVY),
        ("import repsim.corpora as c; c.list_corpora(); c.load_corpus('udhr')",
         ("torch", "transformers", "datasets", "pyarrow")),
        (READING + "split='heldout'); list(t['eng_Latn'])",
         ("datasets", "pyarrow", "pandas", "torch")),
        (FIGURES, ("matplotlib",)),
        (FIGURES + "p.FIGURES['layers'](t)", ("matplotlib.pyplot",)),
    ],
)  # fmt: skip
def test_what_is_not_needed_is_not_imported(code: str, heavy: tuple[str, ...]) -> None:
    code += f"\nimport sys; assert not set({heavy!r}) & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_all_resolve() -> None:
    import repsim

    assert set(repsim.__all__) == {"__version__", *repsim._PUBLIC}
    for name in repsim.__all__:
        assert getattr(repsim, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = repsim.nothing
