"""The lowest releases that tools/installed installs are the lower bounds of pyproject.toml."""

import pytest

from installed import lowest


@pytest.mark.parametrize(
    ("requirement", "pin"),
    [
        ("numpy>=1.26", "numpy==1.26"),
        ("numpy<3,>=1.26", "numpy==1.26"),
        ("numpy<3,>=1.26; extra == 'x'", "numpy==1.26"),
        ('tritonclient[grpc]<3,>=2.52; extra == "triton"', "tritonclient==2.52"),
        ('onnx<2; python_version >= "3.11"', None),
        ('ifrnet-deploy[build]; extra == "export"', None),
        ('tensorrt<12,>=8.6; extra == "tensorrt"', None),
    ],
)
def test_a_requirement_becomes_its_lowest_release(monkeypatch, capsys, requirement, pin):
    monkeypatch.setattr(lowest, "requires", lambda _: [requirement])
    lowest.main()
    assert capsys.readouterr().out.splitlines() == ([pin] if pin else [])
