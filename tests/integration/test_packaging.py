"""The distribution: general names of folders must collide with nothing, and all of them ship.

Our root packages have the names of their subject (`node`, `rpc`, …), which is right for an
application in an environment of its own, as long as nobody else claims them.
See docs/decisions/0001-layout.md.
"""

import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SHIPPED = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
NAMES = {name.removesuffix(".py") for name in SHIPPED}


def test_the_wheel_holds_exactly_the_packages_at_the_root():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    modules = {path.name for path in ROOT.glob("*.py")}
    assert set(SHIPPED) == (packages - {"tests"}) | modules
    assert len(SHIPPED) == len(set(SHIPPED))


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for name in NAMES for path in (ROOT / name).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_other_distribution_and_no_standard_module_has_one_of_our_names():
    owners = packages_distributions()
    claimed = {name: set(owners.get(name, [])) - {"kanglian"} for name in NAMES}
    assert claimed == {name: set() for name in NAMES}
    assert NAMES & sys.stdlib_module_names == set()


def test_the_command_leads_to_cli():
    installed = distribution("kanglian")
    (command,) = installed.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("kanglian", "cli:main")
    assert callable(command.load())
    assert installed.version == PYPROJECT["project"]["version"]


def test_every_dependency_is_pinned_exactly_once_and_no_download_host_is_named():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert len(pins) == len(set(pins))
    assert [line for line in lines if "==" not in line or "://" in line] == []
    project = PYPROJECT["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted = {item.partition(">=")[0].lower() for item in named}
    assert wanted - set(pins) == set()


def test_every_tool_knows_the_same_first_party_packages():
    isort = set(PYPROJECT["tool"]["ruff"]["lint"]["isort"]["known-first-party"])
    assert isort == NAMES | {"tests", "docs"}
    # The verifier that stands beside the specification is checked, but not shipped.
    assert set(PYPROJECT["tool"]["basedpyright"]["include"]) == {*SHIPPED, "docs"}
    linted = (ROOT / ".importlinter").read_text("utf-8")
    roots = linted.partition("root_packages =")[2].partition("include_external")[0].split()
    assert set(roots) == NAMES - {"cli"}
