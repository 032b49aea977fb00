"""CITATION.cff names this version, its date in CHANGELOG.md, and the paper."""

import re

import pytest
import yaml

import ifrnet_model
import runtime
from distributions import project
from paths import ROOT


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_citation_describes_the_software(citation):
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["title"] == project()["name"]
    assert citation["license"] == project()["license"]
    assert citation["authors"] == project()["authors"]
    assert citation["message"]


def test_citation_has_version_and_date_of_the_newest_release(citation):
    headings = re.findall(r"^## \[(.*)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    version, date = headings[1]
    assert version == runtime.__version__ == ifrnet_model.__version__
    assert re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date)
    assert (citation["version"], f" - {citation['date-released']}") == (version, date)


def test_citation_references_the_paper(citation):
    (paper,) = citation["references"]
    assert paper["title"].startswith("IFRNet: Intermediate Feature Refine Network")
    assert (paper["year"], paper["start"], paper["end"]) == (2022, 1969, 1978)
    assert [author["family-names"] for author in paper["authors"]] == [
        "Kong", "Jiang", "Luo", "Chu", "Huang", "Tai", "Wang", "Yang"
    ]  # fmt: skip
    assert paper["url"] == project()["urls"]["Paper"]
