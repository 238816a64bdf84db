"""The layers of docs/development.md: every import goes down."""

import ast

import pytest

from tests.places import ROOT

# From the lowest up. A module imports from lower layers, or from its own package.
LAYERS = [
    {"errors"},
    {"system"},
    {"command_line"},
    {"model"},
    {"modeling", "tokenization"},
    {"optimization", "inputs"},
    {"glue_data"},
    {"weights"},
    {"training", "serving"},
    {"exchange"},
    {"experiments"},
    {
        "run_classifier",
        "predict",
        "export_saved_model",
        "manage_adapters",
        "convert_checkpoint",
        "glue_submission",
        "fetch_encoder",
        "reproduce_paper",
    },
]
BESIDE = {"tests", "benchmarks"}
LAYER_OF = {place: layer for layer, places in enumerate(LAYERS) for place in places}
PACKAGES = sorted(path.parent.name for path in ROOT.glob("[a-z]*/__init__.py"))


def name_of(path):
    """ "inputs.tasks" for inputs/tasks.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {
    name_of(path): path for pattern in ("*.py", "[a-z]*/*.py")
    for path in ROOT.glob(pattern) if path.parent.name not in BESIDE
}  # fmt: skip


def imported(tree):
    """Names of the project's modules that a syntax tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["%s.%s" % (node.module, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            # "from modeling import BertConfig" names what is in a module.
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                yield name


def tree_of(name):
    return ast.parse(MODULES[name].read_text())


def test_every_module_has_its_place():
    assert {name.partition(".")[0] for name in MODULES} == set(LAYER_OF)
    assert set(PACKAGES) == {name.partition(".")[0] for name in MODULES if "." in name}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down(name):
    place = name.partition(".")[0]
    for other in imported(tree_of(name)):
        there = other.partition(".")[0]
        assert there == place or LAYER_OF[there] < LAYER_OF[place], other


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_imported_within_a_function(name):
    for node in ast.walk(tree_of(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inner = [n for n in ast.walk(node) if isinstance(n, ast.stmt)]
            assert not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in inner)


def test_no_module_imports_itself_by_way_of_others():
    below = {name: set(imported(tree_of(name))) - {name} for name in MODULES}
    done: set[str] = set()
    while len(done) < len(below):
        ready = {name for name in below if name not in done and below[name] <= done}
        assert ready, "in a circle: %s" % sorted(set(below) - done)
        done |= ready


# Code that the tests do not run: it needs other libraries, or measures.
NOT_RUN = sorted([*ROOT.glob("tests/optional/*.py"), *ROOT.glob("benchmarks/*.py")])


def source_of(name):
    """The file of a module of the project or its tests; None for a library's."""
    if name in MODULES:
        return MODULES[name]
    path = name.replace(".", "/") + ".py"
    for place in (ROOT, ROOT / "tests"):
        if (place / path).exists():
            return place / path
    return None


def names_in(path):
    """The names that a module has."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)


@pytest.mark.parametrize("path", NOT_RUN, ids=lambda path: path.name)
def test_names_in_code_that_is_not_run_exist(path):
    tree = ast.parse(path.read_text())
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update({a.asname or a.name: a.name for a in node.names})
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = "%s.%s" % (node.module, alias.name)
                if source_of(name):
                    modules[alias.asname or alias.name] = name
                elif source_of(node.module):
                    assert alias.name in names_in(source_of(node.module)), name
                else:
                    top = node.module.partition(".")[0]
                    assert top not in LAYER_OF and not top.startswith("test"), name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            source = source_of(modules.get(node.value.id, ""))
            if source:
                assert node.attr in names_in(source), ast.unparse(node)
