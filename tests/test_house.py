"""The project's own rules: who imports whom, sizes, generated pages."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import ris_diag
from ris_diag.cause import AREAS, Cause, all_causes
from ris_diag.check import ANY_CHECK, all_checks, select_checks
from ris_diag.diagnosis import SYMPTOMS
from ris_diag.pages import SOURCES as CHECK_SOURCES
from ris_diag.pages import pages
from ris_diag.screen import fitted
from ris_diag.summary import summary
from tests.faults.all import ALL_FAULTS, RANKED_FAULTS
from tests.faults.catalogue import one_step_an_epoch
from tests.faults.metrics import note_formula
from tests.faults.reports import SHOWN, area_of, page

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = [
    path for room in ("model", "ris_diag", "pytest_ris") for path in (ROOT / room).rglob("*.py")
]

CORE = {"torch", "numpy"}
# Room: what any module of it may import; exceptions by module.
ALLOWED = {
    "model": CORE | {"model"},
    "ris_diag": CORE | {"ris_diag", "rich"},
    "pytest_ris": {"pytest_ris", "pytest", "ris_diag"},
}
ALSO = {
    "model/case.py": {"ris_diag"},
    "ris_diag/cli.py": {"click"},
    "ris_diag/commands.py": {"click"},
    "ris_diag/__main__.py": {"click"},
    "ris_diag/strategies.py": {"hypothesis"},
    "ris_diag/proof.py": {"hypothesis"},
    "ris_diag/search/command.py": {"click"},
    "ris_diag/ci/command.py": {"click"},
    "ris_diag/diff.py": {"click"},
    "ris_diag/report/command.py": {"click"},
    "ris_diag/report/drawing.py": {"matplotlib"},
    "ris_diag/report/figures.py": {"matplotlib"},
    "ris_diag/report/page.py": {"jinja2", "markupsafe"},
    **{
        f"ris_diag/search/{name}.py": {"optuna", "sqlalchemy"}
        for name in ("claims", "pruning", "space", "storage", "study", "table", "winner", "worker")
    },
}
# Third-party modules that the plugin may load at module level. ris_diag/__init__.py and
# ris_diag/families.py import nothing but the standard library, so they cost nothing.
LIGHT = {"pytest", "pytest_ris", "ris_diag.families", "ris_diag.launch"}


def module_level(tree: ast.Module) -> set[str]:
    """Modules imported when the module is, TYPE_CHECKING blocks left out."""
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return names(nodes)


def everywhere(tree: ast.Module) -> set[str]:
    return names([node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)])


def names(nodes: list[ast.Import | ast.ImportFrom]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module:
            found.add(node.module)
    return found


def third_party(modules: set[str]) -> set[str]:
    return {m for m in modules if m.split(".")[0] not in sys.stdlib_module_names}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def foreign_imports(path: Path, tree: ast.Module) -> set[str]:
    """What a module imports against the table of rooms."""
    relative = path.relative_to(ROOT).as_posix()
    room = relative.split("/")[0]
    allowed = ALLOWED[room] | ALSO.get(relative, set())
    imported = third_party(everywhere(tree))
    return {module for module in imported if module.split(".")[0] not in allowed}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_rooms_import_what_they_may(path: Path) -> None:
    assert foreign_imports(path, parse(path)) == set()


def test_the_table_of_rooms_can_fail() -> None:
    bad = ast.parse("def f():\n    from model.case import reference\n    import pytest\n")
    assert foreign_imports(ROOT / "ris_diag" / "runner.py", bad) == {"model.case", "pytest"}


@pytest.mark.parametrize(
    "name",
    [
        "plugin",
        "options",
        "session",
        "terminal",
        "suite",
        "seeding",
        "cases",
        "ci",
        "collector",
        "devices",
        "errors",
        "records",
    ],
)
def test_plugin_imports_nothing_heavy_at_module_level(name: str) -> None:
    imported = third_party(module_level(parse(ROOT / "pytest_ris" / f"{name}.py")))
    heavy = {m for m in imported if m not in LIGHT and m.split(".")[0] != "pytest_ris"}
    assert heavy == set()


@pytest.mark.parametrize("name", ["__init__", "families", "launch"])
def test_what_the_plugin_loads_of_the_toolkit_is_standard_library(name: str) -> None:
    assert third_party(module_level(parse(ROOT / "ris_diag" / f"{name}.py"))) == set()


def test_modules_are_about_one_thing() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {str(path) for path, count in lines.items() if count > 400} == set()
    assert sorted(lines.values())[len(lines) // 2] <= 150


def test_no_guard_is_an_assert() -> None:
    asserting = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assert)
    }
    assert asserting == set()


def test_generated_pages_are_current() -> None:
    committed = {
        path.relative_to(ROOT / "docs").as_posix(): path.read_text(encoding="utf-8")
        for part in ("checks", "causes")
        for path in (ROOT / "docs" / part).glob("*.md")
    }
    assert committed == pages(), "run `make docs`"


def test_every_source_is_explained() -> None:
    used = {source for check in all_checks() for source in check.sources}
    assert used == set(CHECK_SOURCES)


def test_reports_of_planted_faults_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert (ROOT / "docs" / "reports.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_reports_show_every_area_and_name_its_cause() -> None:
    faults = {fault.name: fault for fault in [*ALL_FAULTS, *RANKED_FAULTS]}
    assert [area_of(faults[name]) for name in SHOWN] == list(AREAS)
    reports = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    named = re.findall(r"^Diagnosis: C\d+ (\S+),", reports, re.MULTILINE)
    assert all(slug in faults[name].cause for name, slug in zip(SHOWN, named, strict=True))


def links(document: Path) -> list[str]:
    """Relative targets of the links in a document, its blocks of code left out."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    return [link for link in found if "://" not in link]


def test_links_between_documents_exist() -> None:
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    targets = {(doc, link): doc.parent / link for doc in documents for link in links(doc)}
    assert len(targets) > 20
    assert [key for key, target in targets.items() if not target.exists()] == []
    linked = {target.resolve() for (doc, _), target in targets.items() if doc.name == "README.md"}
    pages_of_docs = ("design.md", "reports.md", "ci.md", "checks/index.md", "causes/index.md")
    assert {ROOT / "docs" / name for name in pages_of_docs} <= linked


@pytest.mark.parametrize("check", all_checks(), ids=lambda c: c.id)
def test_every_declaration_is_complete(check: object) -> None:
    from ris_diag.check import Check

    assert isinstance(check, Check)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", check.slug)
    assert not check.title.endswith(".")
    assert check.what.endswith(".")
    assert check.why.endswith(".")
    assert check.thresholds, "a check without a limit can't say why it fails"
    assert all(t.why and t.unit for t in check.thresholds)
    assert all(re.fullmatch(r"[SB]\d+", source) for source in check.sources)


def test_every_sign_of_a_check_speaks_for_a_cause() -> None:
    listed = {sign for cause in all_causes() for sign in cause.looks} | SYMPTOMS
    declared = {sign for check in all_checks() for sign in check.signs}
    assert declared - listed == set()


def test_every_sign_of_a_cause_is_found_by_a_check() -> None:
    declared = {sign for check in all_checks() for sign in check.signs} | {*ANY_CHECK}
    listed = {sign for cause in all_causes() for sign in cause.looks}
    assert (listed | SYMPTOMS) - declared == set()


def test_no_sign_belongs_to_two_checks_of_one_family_by_mistake() -> None:
    """A slug that is a sign is the sign of its own check."""
    slugs = {check.slug: check for check in all_checks()}
    taken = [
        (check.id, sign)
        for check in all_checks()
        for sign in check.signs
        if sign in slugs and slugs[sign] is not check
    ]
    assert taken == []


@pytest.mark.parametrize("cause", all_causes(), ids=lambda c: c.id)
def test_every_cause_is_declared_in_full(cause: Cause) -> None:
    assert re.fullmatch(r"C\d{3}", cause.id)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cause.slug)
    assert cause.area in AREAS
    assert cause.title[0].isupper()
    assert not cause.title.endswith(".")
    for text in (cause.silent, cause.repair):
        assert text.endswith(".")
        assert len(text.split()) > 1
        assert "  " not in text
    assert cause.reference
    assert not cause.reference.endswith(".")
    assert not cause.settles.endswith(".")
    assert cause.looks
    assert all(0 < share < 1 for share in cause.looks.values())
    assert 0 < cause.elsewhere <= 0.1


def test_ids_and_slugs_name_one_thing() -> None:
    """`explain NAME` takes checks and causes alike."""
    names = [(c.id, c.slug) for c in all_checks()] + [(c.id, c.slug) for c in all_causes()]
    flat = [name for pair in names for name in pair]
    assert sorted(flat) == sorted(set(flat))


def test_every_cause_has_a_planted_fault() -> None:
    planted = {slug for fault in [*ALL_FAULTS, *RANKED_FAULTS] for slug in fault.cause}
    slugs = {cause.slug for cause in all_causes()}
    assert slugs - planted == set()
    assert planted - slugs == set()


def test_every_page_is_linked_from_its_index() -> None:
    ids = {"causes": [c.id for c in all_causes()], "checks": [c.id for c in all_checks()]}
    for part, known in ids.items():
        index = ROOT / "docs" / part / "index.md"
        assert {f"{name}.md" for name in known} <= set(links(index))


SCREENS = re.findall(r"^```text\n((?:READY|NOT READY).*?)^```", README, re.MULTILINE | re.DOTALL)


def settled(screen: str) -> list[str]:
    """Lines of a screen without what another machine measures otherwise."""
    lines = [re.sub(r" +\d+(\.\d)? s\b", "", line) for line in screen.splitlines()]
    return [line for line in lines if not line.startswith(("  loss", "  Litmus", "  6 modules"))]


def test_readme_shows_the_report_that_a_fault_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    target = "tests.faults.catalogue:one_step_an_epoch"
    checks = select_checks(["guard", "litmus"])
    report = ris_diag.Runner(one_step_an_epoch(), target=target).run(checks)
    lines = summary(report.results, told="case ris-reference-4x4, cpu, seed 0, 2 s")
    shown = "\n".join(text for text, _ in fitted(lines, width=None, encoding="utf-8"))
    assert settled(shown) == settled(SCREENS[1])


def test_readme_shows_families_and_counts_as_they_are() -> None:
    told = re.findall(r"^(\w+) +[\d.]+ s  (.*)$", SCREENS[0], re.MULTILINE)
    counted = {family: sum(map(int, re.findall(r"\d+", counts))) for family, counts in told}
    assert counted == Counter(check.family for check in all_checks())
    assert f"{len(all_checks())} checks" in README
    assert f"{len(all_causes())} causes" in README


def test_readme_shows_the_law_that_the_usual_formula_breaks() -> None:
    case = ris_diag.Case(name="note", distance=note_formula)
    shown = ris_diag.run(case, select="M003")["M003"].message().split(" It looks like squares")[0]
    assert shown in README
