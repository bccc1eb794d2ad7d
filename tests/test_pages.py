"""The pages: their links lead somewhere, and the commands on them are legal."""

import re
import shlex
import shutil

import pytest

import opts
from examples import write_pictures
from programs import PROJECT, tracked

PAGES = tracked("*.md")
PROGRAMS = (opts.MAIN, opts.TEST, opts.PLOT, opts.PREDICT, opts.CALIBRATE, opts.EXPORT)
PARSERS = {program.name: program.parsed for program in PROGRAMS} | {"main.py": opts.parse}
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page):
    """What a link to a part of a page may end in, as GitHub makes it of the headings."""
    prose = FENCED.sub("", (PROJECT / page).read_text())
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", (PROJECT / page).read_text()))
    for link in (link for link in links if not re.match("https?:", link)):
        path, _, anchor = link.partition("#")
        target = (PROJECT / page).parent / path if path else PROJECT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(page):
    """The lines of the blocks, and the words marked as code in the text, that call a program of this project."""
    text = (PROJECT / page).read_text()
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    lines += re.findall(r"^    \S.*$", text, re.MULTILINE)
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    for line in lines:
        called = re.search(r"(?:python|torchrun\b.*) (\w+\.py|-m benchmarks\.\w+)(?: (.*?))?(?: +# .*)?$", line)
        if called and not re.search(r"\.\.\.|…|\$\w|--help|\bMODEL\b", line):
            yield called[1], shlex.split(called[2] or "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which there is what the commands are given."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("pictures/train", "pictures/test", "halves/even/test", "halves/odd"):
        write_pictures(folder / name, {"a": 1, "b": 1})
    (folder / "small.toml").write_text("depth = 14\n")
    (folder / "path").mkdir()
    for name in ("pretrained", "path/to"):
        (folder / name).symlink_to(PROJECT / "pretrained")
    for run in ("DIGITS-AuxResNet-14-3", "stopped/DIGITS-AuxResNet-26-2"):
        shutil.copytree(PROJECT / "tests" / "fixtures" / "finished" / "DIGITS-AuxResNet-8-2", folder / run)
    return folder


def test_there_are_commands():
    assert sum(len(list(commands(page))) for page in PAGES) > 100


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))])
def test_commands_are_legal(page, place, monkeypatch):
    monkeypatch.chdir(place)
    for program, words in commands(page):
        if program in PARSERS:
            PARSERS[program](words)
        else:
            assert (PROJECT / f"{program.removeprefix('-m ').replace('.', '/')}.py").exists()
