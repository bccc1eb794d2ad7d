"""The architecture, as the README and the folders show it, holds in the code."""

import ast
import re
import subprocess
import sys
from collections import Counter

from programs import PROJECT, tracked

FLOORS = (  # from the ground up; a file imports from its own floor and from those below
    ("system",),
    ("datasets", "models"),
    ("options",),
    ("formats", "opts", "checkpoints", "reports"),
    ("inference",),
    ("training",),
    ("main", "test", "plot", "calibrate", "predict", "export", "hubconf"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
STRANGERS = ({"models", "datasets"},)
TORCH_FREE = ("opts", "options.declaration", "options.values", "options.recipes", "options.stored",
              "options.rules", "datasets.catalog", "datasets.sizing", "models.names", "models.exits",
              "formats.log_file", "reports.cards", "reports.card_plots", "reports.destination", "system.errors",
              "system.files", "system.lock", "system.stopping", "main", "test", "plot", "calibrate", "predict",
              "export", "hubconf")  # fmt: skip


def modules():
    return [PROJECT / name for name in tracked("*.py")]


def room(path):
    return path.relative_to(PROJECT).parts[0].removesuffix(".py")


def imports(path):
    """The rooms that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[0] for name in names)


def test_imports_run_one_way():
    wrong = [
        f"{path.relative_to(PROJECT)} imports {other}"
        for path in modules()
        if room(path) in FLOOR
        for other in imports(path)
        if other in FLOOR and FLOOR[other] > FLOOR[room(path)]
    ]
    assert not wrong


def test_neighbours_that_never_meet():
    wrong = [
        f"{path.relative_to(PROJECT)} imports {other}"
        for path in modules()
        for other in imports(path)
        for pair in STRANGERS
        if pair == {room(path), other}
    ]
    assert not wrong


def test_every_room_has_a_floor():
    assert {room(path) for path in modules()} == FLOOR.keys() | {"benchmarks", "tests"}


def test_few_files_lie_at_the_top():
    assert len([path for path in modules() if path.parent == PROJECT]) <= 9


def test_what_answers_at_once_does_not_import_torch():
    code = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(module)\n"
        "    assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys(), module\n"
    )
    command = [sys.executable, "-c", code, *TORCH_FREE]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_tree_in_the_readme_is_the_tree():
    """Every Python file of the program has its line there, and every line its file."""
    block = re.search(r"```\n(main\.py .*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)[1]
    shown, folder = set(), ""
    for line in block.splitlines():
        name = line.split()[0] if line.split() else ""
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        if name.endswith(".py"):
            shown.add(name if not line.startswith(" ") else folder + name)
    inside = {str(path.relative_to(PROJECT)) for path in modules() if room(path) in FLOOR and path.stem != "__init__"}
    assert shown == inside


def test_the_tests_have_the_folders_of_the_program():
    rooms = {room(path) for path in modules() if room(path) in FLOOR and path.parent != PROJECT}
    assert {path.parent.name for path in (PROJECT / "tests").glob("*/test_*.py")} == rooms


def test_every_test_that_reliability_md_names_is_there_once():
    named = set(re.findall(r"`(test_\w+)`", (PROJECT / "RELIABILITY.md").read_text()))
    defined = Counter(
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    )
    assert len(named) > 40
    assert {name: defined[name] for name in named} == dict.fromkeys(named, 1)


def test_nothing_depends_on_the_time_of_day():
    """Clocks are set and jump; what is measured or awaited goes by the monotonic one. A timedelta is only a length."""
    lengths = {"time": {"monotonic", "perf_counter", "process_time", "sleep"}, "datetime": {"timedelta"}}
    found = [
        f"{path.relative_to(PROJECT)} uses {module}.{name}"
        for path in modules()
        if room(path) in FLOOR
        for module, fine in lengths.items()
        for name in uses(path, module) - fine
    ]
    assert not found


def uses(path, module):
    """What a file takes from a module: as `module.name`, from an import of names, or the module under another name."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    taken = {node.attr for node in attributes if node.value.id == module}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == module:
            taken |= {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            taken |= {alias.asname for alias in node.names if alias.name == module and alias.asname}
    return taken
