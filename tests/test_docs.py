"""The documents: links lead somewhere, examples run, what is public is described."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import httpx
import pytest

import pbmon
from pbmon import cli, settings
from pbmon.testing import capture

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/**/*.md")
    for page in ROOT.glob(pattern)
)
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
README = TEXT["README.md"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as they are made of their words."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[page]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{page}: {target}"


def test_no_page_is_an_orphan():
    linked = {
        ((ROOT / page).parent / target.partition("#")[0]).resolve()
        for page, text in TEXT.items()
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not target.startswith("http")
    }
    orphans = [p for p in TEXT if p.startswith("docs/") and (ROOT / p).resolve() not in linked]
    assert orphans == []


def test_generated_pages_say_what_the_tables_say():
    check = [sys.executable, "docs/build.py", "--check"]
    assert subprocess.run(check, cwd=ROOT, check=False).returncode == 0


class Client:
    """Calls an application as a test client does, without a server."""

    def __init__(self, app) -> None:
        self.app = app

    def post(self, path: str) -> httpx.Response:
        async def post() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
                return await client.post(path)

        return asyncio.run(post())


def test_the_readmes_application_and_test_run_as_written():
    application, configure, business, logs, in_tests = blocks(README, "python")
    compile(logs, "README.md", "exec")
    shop: dict = {}
    exec(application, shop)
    test: dict = {}
    exec(in_tests, test)
    test["test_paying_counts"](Client(shop["app"]))
    exec(business, shop)
    with capture() as seen:
        for path in ("/payments/7", "/payments/7/refund"):
            assert Client(shop["app"]).post(path).status_code == 200
    charge, paid, refund = seen.entries
    assert (charge.amount_minor, paid.name, refund.amount_minor) == (1250, "paid", 250)
    names = re.findall(r"(\w+)=", configure.partition("budgets")[0])
    assert set(names) <= set(settings.FIELDS)
    exec(configure.replace("pbmon.configure(", "dict("), {"pbmon": pbmon})


def test_the_readmes_settings_are_settings(tmp_path):
    for toml in blocks(README, "toml"):
        (tmp_path / "pbmon.toml").write_text(toml, encoding="utf-8")
        resolved, problems = settings.resolve(environ={}, directory=tmp_path)
        assert problems == []
    assert resolved.budgets.find("GET", "/api/transactions").p95_s == 0.3


def test_the_budgets_of_the_page_are_budgets(tmp_path):
    page = TEXT["docs/budgets.md"]
    (toml,) = blocks(page, "toml")
    (tmp_path / "pbmon.toml").write_text(toml, encoding="utf-8")
    resolved, problems = settings.resolve(environ={}, directory=tmp_path)
    assert problems == []
    assert [budget.is_route for budget in resolved.budgets.all] == [True, True, False]
    (variable,) = re.findall(r'PBMON_BUDGETS="(.*)"', page)
    resolved, problems = settings.resolve(environ={"PBMON_BUDGETS": variable})
    assert (problems, len(resolved.budgets.all)) == ([], 2)
    exec(blocks(page, "python")[0].replace("pbmon.configure(", "dict("), {"pbmon": pbmon})


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for text in TEXT.values()
        for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)
    }
    assert len(named) >= 3
    assert named <= targets


@pytest.mark.parametrize("name", [n for n in pbmon.__all__ if not n.startswith("_")])
def test_every_public_name_is_described(name):
    assert any(re.search(rf"\b{name}\b", text) for text in TEXT.values())
    documented = getattr(pbmon, name)
    assert documented.__doc__, name
    assert len(documented.__doc__.splitlines()) <= 40


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_described(command):
    assert any(f"pbmon {command}" in text for text in TEXT.values())


def tracked() -> list[Path]:
    """Every file of the project."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def test_no_word_is_of_this_machine():
    texts = {path: data for path in tracked() if b"\0" not in (data := path.read_bytes())}
    assert len(texts) > 300
    named = [
        path.name for path, text in texts.items() if re.search(rb"/(?:work|root|home)/\w", text)
    ]
    assert named == []


def test_every_extra_is_described():
    table = TEXT["docs/settings.md"].partition("## Extras")[2]
    named = re.findall(r"^\| `(\w+)` \| ", table, re.MULTILINE)
    assert sorted(named) == sorted(metadata.metadata("pbmon").get_all("Provides-Extra", []))


def test_readme_example_is_of_the_capture():
    with capture() as seen:
        pbmon.track_revenue("12.50", "USD", transaction_id="x")
        assert seen.entries[-1].amount_minor == 1250
