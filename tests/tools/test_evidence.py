"""The commands of tools/evidence.py fit the commands of bench and export, and each other."""

from pathlib import Path

import pytest

import evidence
from bench import latency, parity
from bench.harness.request import LatencyRequest
from export import build_engine, to_onnx
from paths import ROOT

PARSERS = {
    "bench.parity": parity.make_parser,
    "bench.latency": latency.make_parser,
    "export.build_engine": build_engine.make_parser,
    "export.to_onnx": to_onnx.make_parser,
}
STEPS = dict(evidence.steps())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Artefacts and data under their names, so that paths in the commands exist."""
    monkeypatch.chdir(tmp_path)
    for name in evidence.ARTEFACTS:
        (tmp_path / name).touch()
    for name in ("UCF101", "Middlebury"):
        (tmp_path / name).mkdir()
    clips = {name for name, _, _ in evidence.SCALED_CLIPS} | evidence.LARGE_CLIPS.keys()
    for name in {*clips, "london_60fps.mp4", "walk.mkv", "base.pth"}:
        (tmp_path / name).touch()
    for name in STEPS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("name", STEPS)
def test_a_measurement_has_valid_arguments_and_known_artefacts(name):
    module, *arguments = STEPS[name]
    args = PARSERS[module]().parse_args(arguments)
    models = {path.name for path in args.model}
    assert models <= evidence.ARTEFACTS.keys()
    if module == "bench.parity":
        parity._request(args)
        assert args.output == Path(f"{name}.jsonl")
    else:
        assert isinstance(latency._request(args), LatencyRequest)
        assert args.json == Path(f"{name}.json")
    # Its last argument is the file that is copied.
    assert arguments[-1].partition(".")[0] == name


@pytest.mark.parametrize("name", evidence.ARTEFACTS)
def test_an_artefact_has_valid_arguments_and_is_measured(name):
    module, *arguments = evidence.ARTEFACTS[name]
    PARSERS[module]().parse_args([*arguments, "--output", name])
    assert any(name in command for command in STEPS.values())


def test_the_committed_files_are_those_of_the_tool():
    results = ROOT / "bench" / "results"
    folders = {results / Path(name).parent for name in STEPS}
    committed = {
        str(path.relative_to(results).with_suffix(""))
        for folder in folders
        for path in folder.glob("*.json*")
    }
    assert len(folders) == 4
    assert committed == STEPS.keys()
