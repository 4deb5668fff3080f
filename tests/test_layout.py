"""Imports point from a later stage to an earlier one, and the library imports nothing of the scripts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = [
    {"errors", "values", "progress"},
    {"data"},
    {"distributions"},
    {"networks"},
    {"models"},
    {"objectives"},
    {"checkpoints"},
    {"training"},
    {"evaluation"},
    {"compression"},
    {"plotting"},
    {"pages"},
]
STAGE = {name: number for number, names in enumerate(STAGES) for name in names}


def imported_by(source):
    """The names of the modules that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def against_the_direction(path, source):
    """The imports of a module of vae_jax that point to a later stage, to stand-in data or out of the library."""
    parts = path.relative_to(ROOT / "vae_jax").with_suffix("").parts
    own = STAGE[parts[0]]
    for name in imported_by(source):
        package, *names = name.split(".")
        if (
            package in ("harness", "benchmarks", "experiments", "tests")
            or (package == "vae_jax" and STAGE.get(names[0] if names else "", len(STAGES)) > own)
            or (names[:2] == ["data", "synthetic"] and parts[:2] != ("data", "synthetic"))
        ):
            yield name


MODULES = sorted(path for path in (ROOT / "vae_jax").rglob("*.py") if path != ROOT / "vae_jax/__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_to_the_same_stage_or_an_earlier_one(path):
    assert list(against_the_direction(path, path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "from vae_jax.training import fit",
        "import vae_jax.plotting.curves",
        "from vae_jax import fit",
        "import vae_jax as vj",
        "from harness.run import Run",
        "from vae_jax.data.synthetic.faces import draw_faces",
    ],
)
def test_imports_against_the_direction_are_found(source):
    found = list(against_the_direction(ROOT / "vae_jax/models/vae.py", source))
    assert len(found) == 1


def test_each_folder_of_tests_is_a_package_or_the_scripts():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders - {".", "experiments"} <= {path.parent.name for path in (ROOT / "vae_jax").glob("*/__init__.py")}


def test_importing_the_library_imports_no_stand_in_data_no_harness_and_no_data_package():
    check = (
        "import sys, vae_jax; "
        "print(*[name for name in sys.modules if name.startswith(('vae_jax.data.synthetic', 'harness', 'benchmarks')) "
        "or name in ('tensorflow_datasets', 'sklearn', 'tyro', 'tqdm')])"
    )
    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert printed.split() == []
