"""The page of `dvc plots show`: what draws it is in it, and it is drawn without a network."""

import hashlib
import importlib.util
import re
import shutil
from collections.abc import Iterator

import pytest
from ruamel.yaml import YAML

from accidents import checked
from conftest import ROOT

PAGE = (ROOT / ".dvc/plots/page.html").read_text(encoding="utf-8")
SCRIPT = re.compile(r"<!-- (\S+@[\d.]+)\n.*?-->\n<script>(.*?)</script>", re.DOTALL)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def build() -> object:
    """Return the script that made the page, imported."""
    spec = importlib.util.spec_from_file_location("build_plots", ROOT / ".dvc/plots/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scripts_are_those_of_the_packages_with_the_pinned_hashes():
    found = {package: hashlib.sha256(script.encode()).hexdigest() for package, script in SCRIPT.findall(PAGE)}
    assert len(found) == 3
    assert found == build().SCRIPTS
    assert "Redistribution and use in source and binary forms" in PAGE


def test_what_is_not_theirs_is_as_the_script_writes_it_and_loads_nothing():
    own = SCRIPT.sub("", PAGE)
    made = build()
    assert own.split() == f"{made.HEAD}{made.NOTE}{made.TAIL}".split()
    assert "{scripts}" not in own  # where DVC would put the addresses of a server
    assert not re.search(r"src=|href=|https?:", own)


def test_no_plot_is_of_what_the_authors_measured():
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    files = [file for plot in plots for options in plot.values() for file in options["y"]]
    assert "metrics/plots/bits.csv" in files
    assert [file for file in files if not file.startswith("metrics/")] == []


@pytest.fixture
def opened(run_copy) -> Iterator:
    """Draws the plots of the finished run in Chromium without a network; gives the page and what it said."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))

        def show(*command: str) -> tuple:
            said.clear()
            checked(run_copy, "dvc", *command)
            page.goto((run_copy / "dvc_plots/index.html").as_uri())
            return page, said

        yield show
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_every_plot_is_drawn_without_a_network(opened, run_copy):
    from playwright.sync_api import expect

    plots = YAML(typ="safe").load((run_copy / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    titles = [options["title"] for plot in plots for options in plot.values()]
    for command in (("plots", "show"), ("plots", "diff", "HEAD", "workspace")):
        page, said = opened(*command)
        drawn = page.locator("body > div canvas.marks")
        expect(drawn).to_have_count(len(titles))
        assert all(canvas.bounding_box()["height"] > 50 for canvas in drawn.all())
        assert said == [page.url]
        source = (run_copy / "dvc_plots/index.html").read_text(encoding="utf-8")
        assert [title for title in titles if title not in source] == []
        # The menu saves a picture, and hands nothing to an editor on the web.
        menu = {link.text_content() for link in page.locator(".vega-actions a").all()}
        assert menu == {"Save as SVG", "Save as PNG"}
    assert "GPU" not in (run_copy / "metrics/runs/memory.csv").read_text(encoding="utf-8")
