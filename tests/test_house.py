"""The house rules that a machine can hold: size, names, documents, import weight, stray words."""

import ast
import dataclasses
import enum
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from agent import __version__, app, cli
from agent.core import errors, model

ROOT = Path(__file__).parents[1]
MAX_LINES = 500
PRODUCT = ("agent", "drivers", "firmware_sim", "benchmarks")
BANNED_PARTS = {"manager", "handler", "helper", "helpers", "util", "utils", "common", "misc"}
BANNED_MODULES = BANNED_PARTS | {"data", "info", "process", "do"}
HEAVY = ("cv2", "numpy", "ai_edge_litert", "tflite_runtime", "pymavlink", "serial")
ONE_PAGE = 100  # lines


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # unpacked from an archive
        found = [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return tuple(path for path in found if path.is_file())


def modules(*folders: str) -> list[Path]:
    return [
        path
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def kinds_of(folder: str) -> list[str]:
    return sorted(
        path.stem
        for path in modules("agent", "drivers")
        if name(path.parent) == folder and not path.stem.startswith("_")
    )


DRIVERS = kinds_of("drivers")
ANALYTICS = kinds_of("agent/vision/analytics")


# Code.


@pytest.mark.parametrize("path", modules(*PRODUCT, "tests"), ids=name)
def test_a_module_says_what_it_is_and_is_not_too_long(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module begins with its docstring"
    assert text.count("\n") <= MAX_LINES


def definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node


@pytest.mark.parametrize("path", modules(*PRODUCT), ids=name)
def test_names_say_something(path: Path) -> None:
    assert path.stem not in BANNED_MODULES
    for node in definitions(path):
        parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", node.name)}
        assert not parts & BANNED_PARTS, node.name
        assert not node.name.startswith("get_"), node.name


@pytest.mark.parametrize("path", modules(*PRODUCT, "tests"), ids=name)
def test_nothing_is_left_unfinished(path: Path) -> None:
    if path == Path(__file__):
        return
    marks = r"\b(TODO|FIXME|XXX|NotImplementedError)\b|not implemented|placeholder|assert True$"
    mocks = r"unittest\.mock|\bmock\.patch|import mock"
    found = re.search(f"{marks}|{mocks}", path.read_text(), re.MULTILINE)
    assert found is None, found


@pytest.mark.parametrize("path", modules("drivers"), ids=name)
def test_a_driver_sees_the_core_and_what_drivers_share(path: Path) -> None:
    for module in imported(path):
        if module.startswith("agent"):
            assert module.startswith("agent.core"), module
        if module.startswith("drivers."):
            assert module.split(".")[1].startswith("_"), module


@pytest.mark.parametrize("kind", ANALYTICS)
def test_an_analytic_sees_no_clock_file_log_or_other_analytic(kind: str) -> None:
    path = ROOT / "agent" / "vision" / "analytics" / f"{kind}.py"
    allowed = {"agent.core.config", "agent.core.model", "math", "typing", "dataclasses"}
    for module in imported(path):
        is_shared = (
            module.startswith("agent.vision.analytics._") or module == "agent.vision.analytics"
        )
        assert is_shared or module in allowed or module.startswith("collections"), module


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("drivers", "agent", "agent.core", "agent.vision.analytics"):
                yield from (f"{node.module}.{item.name}" for item in node.names)
            else:
                yield node.module


def test_the_error_tree_is_the_docstring() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines()[1:]:
        words = line.split()
        if not words:
            continue
        depth = len(line) - len(line.lstrip())
        above = [(deep, word) for deep, word in above if deep < depth]
        drawn[words[0]] = above[-1][1] if above else "Exception"
        above.append((depth, words[0]))
    classes = {
        found.__name__: found.__bases__[0].__name__
        for _, found in inspect.getmembers(errors, inspect.isclass)
    }
    assert drawn == classes


def test_records_are_frozen_and_small() -> None:
    for _, found in inspect.getmembers(model, inspect.isclass):
        if found.__module__ == model.__name__ and dataclasses.is_dataclass(found):
            assert found.__dataclass_params__.frozen, found
            assert hasattr(found, "__slots__"), found


def test_the_main_process_is_light() -> None:
    script = (
        "import json, sys, agent.app, agent.roles.camera\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(json.loads(output)) & {*HEAVY, "sqlite_utils", "rich", "asyncio"} == set()


def test_a_dock_reads_no_media_in_its_main_process() -> None:
    script = (
        "import json, sys, agent.app, agent.roles.dock\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(json.loads(output)) & {*HEAVY, "av", "sqlite_utils", "rich", "asyncio"} == set()


def test_a_bad_word_on_the_command_line_costs_no_heavy_import() -> None:
    script = (
        "import sys\nfrom agent import cli\n"
        "try:\n    cli.main(['nonsense'])\nexcept SystemExit as end:\n    assert end.code == 2\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert output == "[]\n"


# Drivers, analytics, configurations.


@pytest.mark.parametrize("kind", DRIVERS + ANALYTICS)
def test_every_kind_has_a_test_and_a_row_in_the_readme(kind: str) -> None:
    tests = [path for path in modules("tests") if re.fullmatch(rf"test_(\w+_)?{kind}", path.stem)]
    assert tests, f"no tests/**/test_{kind}.py"
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    assert any(f"`{kind}`" in row for row in rows), f"no table row of README.md names `{kind}`"


def test_kinds_are_found_by_their_files() -> None:
    assert sorted({*app.kinds("driver"), *app.INSTRUMENTS}) == DRIVERS
    assert sorted(app.kinds("rule")) == ANALYTICS


CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


def test_there_is_a_configuration_for_every_role() -> None:
    assert {path.stem for path in CONFIGS} >= set(app.ROLES)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_every_configuration_loads(path: Path) -> None:
    assert app.load_config(path, check_files=False).role == path.stem


def test_the_configuration_page_is_current() -> None:
    assert (ROOT / "docs" / "CONFIG.md").read_text() == app.config_page(), (
        "outpost check --page >docs/CONFIG.md"
    )


# Pages.

PAGES = [path for path in tracked() if path.suffix == ".md"]


def test_the_glossary_has_every_record() -> None:
    text = (ROOT / "docs" / "GLOSSARY.md").read_text()
    records = {
        found.__name__
        for _, found in inspect.getmembers(model, inspect.isclass)
        if found.__module__ == model.__name__
        and (dataclasses.is_dataclass(found) or issubclass(found, (tuple, enum.Enum)))
    }
    assert len(records) > 15
    assert {record for record in records if f"`{record}`" not in text} == set()


def test_the_readme_names_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.split("## Two commands")[1].split("\n## ")[0]
    commands = re.findall(r"^\./run (\w+)", section, re.MULTILINE)
    assert commands == ["demo", "test"]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_the_commands_on_a_page_exist(path: Path) -> None:
    text = path.read_text()
    words = set(re.findall(r"^  ([a-z]+) ", (ROOT / "run").read_text(), re.MULTILINE))
    assert set(re.findall(r"\./run ([a-z]+)", text)) <= words
    shown = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    assert set(re.findall(r"(?:^|[\s`/])outpost +([a-z]+)\b", shown)) <= commands_of_cli()


@cache
def commands_of_cli() -> frozenset[str]:
    parser = cli._parser()
    subparsers = next(item for item in parser._actions if isinstance(item.choices, dict))
    return frozenset(subparsers.choices)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_the_links_of_a_page_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("page", ["ADDING_A_DRIVER.md", "ADDING_AN_ANALYTIC.md"])
def test_a_guide_is_one_page(page: str) -> None:
    assert (ROOT / "docs" / page).read_text().count("\n") <= ONE_PAGE


def test_the_version_stands_in_one_form() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__


def test_every_dependency_is_locked_with_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.findall(
        r"^([a-z0-9-]+)==(?:.*\\\n)((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        lock,
        re.MULTILINE,
    )
    locked = {found[0] for found in entries}
    assert len(re.findall(r"^\S", lock, re.MULTILINE)) == len(entries), "an entry without hashes"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["litert"], *extras["dev"]]
    assert {re.match(r"[a-zA-Z0-9-]+", item)[0].lower() for item in wanted} <= locked


# The pattern is put together from pieces, so that this file does not hold what it looks for.
STRAY = re.compile(
    "|".join(
        [
            "/wo" + "rk/",
            "/fa" + "rm/",
            r"\bsub" + "agent",
            "this " + "session",
            "/tmp/" + "plan",
            "py" + r"pi\.org",
            "pythonhos" + "ted",
            r"--(extra-)?index-url",
            "/opt/py" + "pi",
            "/opt/whe" + "els",
        ]
    )
)


@pytest.mark.parametrize("path", tracked(), ids=name)
def test_nothing_of_the_workshop_is_left_in_a_file(path: Path) -> None:
    content = path.read_bytes()
    if b"\0" in content[:8192]:
        return  # a video, a model
    found = STRAY.search(content.decode())
    assert found is None, found
