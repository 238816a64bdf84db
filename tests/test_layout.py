"""The layers of docs/development.md: every import goes down, and names what exists."""

import ast
import functools

import pytest

from tests.places import ROOT

# From the lowest up. A module imports from lower layers, or from its own package.
LAYERS = [
    {"errors"},
    {"system"},
    {"command_line"},
    {"model"},
    {"modeling", "tokenization"},
    {"tuning", "inputs"},
    {"optimization", "tasks"},
    {"glue_data"},
    {"weights"},
    {"training", "serving"},
    {"exchange"},
    {"experiments"},
    {
        "run_classifier",
        "run_squad",
        "predict",
        "export_saved_model",
        "manage_adapters",
        "convert_checkpoint",
        "glue_submission",
        "fetch_encoder",
        "fetch_squad",
        "reproduce_paper",
    },
]
LAYER_OF = {place: layer for layer, places in enumerate(LAYERS) for place in places}

# By name, such as "inputs.features"; helpers of tests as the tests import them too.
PATHS = {
    ".".join(path.relative_to(folder).with_suffix("").parts): path
    for folder in (ROOT / "tests", ROOT)
    for pattern in ("*.py", "[a-z]*/*.py", "[a-z]*/[a-z]*/*.py")
    for path in folder.glob(pattern)
}
MODULES = sorted(
    name.removesuffix(".__init__")
    for name in PATHS
    if name.partition(".")[0] in LAYER_OF and "test" not in name
)
# Code that no test runs: it needs other libraries, or measures.
NOT_RUN = sorted([*ROOT.glob("tests/optional/*.py"), *ROOT.glob("benchmarks/*.py")])


def find_path(name):
    """The file of a module; None for a library's."""
    return PATHS.get(name) or PATHS.get(name + ".__init__")


@functools.cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(tree):
    """Pairs of local and full name of all that a syntax tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.asname or each.name, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                yield each.asname or each.name, "%s.%s" % (node.module, each.name)


def imported_modules(name):
    """The project's modules that a module imports."""
    for _, other in imported_names(parse(find_path(name))):
        # "from modeling import BertConfig" imports a name of a module.
        while other and other not in MODULES:
            other = other.rpartition(".")[0]
        if other:
            yield other


def test_every_module_has_a_layer():
    assert {name.partition(".")[0] for name in MODULES} == set(LAYER_OF)
    beside = {"tests", "benchmarks"}
    assert {path.parent.name for path in ROOT.glob("[a-z]*/*.py")} - beside <= set(
        LAYER_OF
    )


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_and_stand_at_the_top(name):
    place = name.partition(".")[0]
    for other in imported_modules(name):
        there = other.partition(".")[0]
        assert there == place or LAYER_OF[there] < LAYER_OF[place], other
    for node in ast.walk(parse(find_path(name))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            kinds = {type(inner) for inner in ast.walk(node)}
            assert not kinds & {ast.Import, ast.ImportFrom}, node.name


def test_there_are_no_import_cycles():
    below = {name: set(imported_modules(name)) - {name} for name in MODULES}
    done: set[str] = set()
    while len(done) < len(below):
        ready = {name for name in below if name not in done and below[name] <= done}
        assert ready, "in a cycle: %s" % sorted(set(below) - done)
        done |= ready


def has_name(module, name):
    """Whether a module of the project, or any library's, has a name."""
    path = find_path(module)
    if path is None:
        return module.partition(".")[0] not in {*LAYER_OF, "tests"}
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = {node.name}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = {node.id}
        else:
            continue
        if name in names:
            return True
    return name in dict(imported_names(parse(path)))


@pytest.mark.parametrize("path", NOT_RUN, ids=lambda path: path.name)
def test_names_in_code_that_is_not_run_exist(path):
    modules = {}
    for local, full in imported_names(parse(path)):
        if find_path(full) or "." not in full:
            modules[local] = full
        else:
            assert has_name(*full.rpartition(".")[::2]), full
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert not module or has_name(module, node.attr), ast.unparse(node)
