from typing import get_args

import pytest

from bench.data import published as module
from bench.data.protocols import PROTOCOLS, Metric
from bench.data.published import published_text
from ifrnet_model.weights import CHECKPOINTS
from ifrnet_model.weights.table import identify

MMAGIC_VIMEO = "7a66b214" + "0" * 56
MMAGIC_GOPRO = "5d2f805a" + "f" * 56
UNKNOWN = "deadbeef" + "0" * 56


def published(dataset, *, sha256, variant, authors, name="weights.pth", source=None):
    """The published figure of a file with this name and hash, as a dictionary; None without."""
    metadata = {} if source is None else {"source_sha256": source}
    identity = identify(name, sha256=sha256, variant=variant, metadata=metadata)
    figure = module.published(dataset, identity=identity, variant=variant, authors=authors)
    return None if figure is None else figure._asdict()


@pytest.mark.parametrize(
    ("variant", "dataset", "psnr", "ssim"),
    [
        ("small", "vimeo90k", 35.59, 0.9786),
        ("small", "ucf101", 35.28, 0.9691),
        ("small", "snufilm-easy", 39.96, 0.9905),
        ("small", "snufilm-medium", 35.92, 0.9792),
        ("small", "snufilm-hard", 30.36, 0.9357),
        ("small", "snufilm-extreme", 25.05, 0.8582),
        ("base", "vimeo90k", 35.80, 0.9794),
        ("base", "ucf101", 35.29, 0.9693),
        ("base", "snufilm-easy", 40.03, 0.9905),
        ("base", "snufilm-medium", 35.94, 0.9793),
        ("base", "snufilm-hard", 30.41, 0.9358),
        ("base", "snufilm-extreme", 25.05, 0.8587),
        ("base", "gopro", 29.84, 0.920),
        ("base", "adobe240", 31.93, 0.943),
        ("large", "vimeo90k", 36.20, 0.9808),
        ("large", "ucf101", 35.42, 0.9698),
        ("large", "snufilm-easy", 40.10, 0.9906),
        ("large", "snufilm-medium", 36.12, 0.9797),
        ("large", "snufilm-hard", 30.63, 0.9368),
        ("large", "snufilm-extreme", 25.27, 0.8609),
    ],
)
def test_the_authors_weights_have_the_papers_figures(variant, dataset, psnr, ssim):
    figure = published(dataset, sha256=UNKNOWN, variant=variant, authors=True)
    assert (figure["psnr"], figure["ssim"], figure["ie"]) == (psnr, ssim, None)
    assert figure["ssim_kind"] == "ssim_3d"
    assert "IFRNet" in figure["source"]


@pytest.mark.parametrize(
    ("variant", "psnr", "ie"),
    [("small", 37.24, 1.995), ("base", 37.50, 1.946), ("large", 38.18, 1.846)],
)
def test_middlebury_has_an_interpolation_error_and_no_ssim(variant, psnr, ie):
    figure = published("middlebury", sha256=UNKNOWN, variant=variant, authors=True)
    assert (figure["psnr"], figure["ssim"], figure["ie"]) == (psnr, None, ie)


@pytest.mark.parametrize(
    ("sha256", "dataset", "psnr", "ssim"),
    [
        (MMAGIC_VIMEO, "vimeo90k", 35.7999, 0.9680),
        (MMAGIC_GOPRO, "gopro", 29.9394, 0.8922),
        (MMAGIC_GOPRO, "adobe240", 30.0273, 0.9057),
    ],
)
def test_published_weights_are_known_by_the_start_of_their_hash(sha256, dataset, psnr, ssim):
    figure = published(dataset, sha256=sha256, variant="base", authors=False)
    assert (figure["psnr"], figure["ssim"], figure["ssim_kind"]) == (psnr, ssim, "ssim_2d")
    assert "mmagic" in figure["source"]


@pytest.mark.parametrize(
    ("sha256", "dataset"),
    [
        (UNKNOWN, "vimeo90k"),
        ("7a66b215" + "0" * 56, "vimeo90k"),
        ("0" * 56 + "7a66b214", "vimeo90k"),
        # Known weights without a published figure for this data set.
        (MMAGIC_VIMEO, "gopro"),
        (MMAGIC_GOPRO, "vimeo90k"),
    ],
)
def test_weights_without_published_figures_have_none(sha256, dataset):
    assert published(dataset, sha256=sha256, variant="base", authors=False) is None


def test_a_converted_checkpoint_keeps_its_figures():
    figure = published(
        "vimeo90k", sha256=UNKNOWN, variant="base", authors=False, source=MMAGIC_VIMEO
    )
    assert (figure["psnr"], figure["ssim"]) == (35.7999, 0.9680)


def test_a_name_alone_is_no_proof_of_the_weights():
    name = "IFRNet_Vimeo90K.pth"
    assert published("vimeo90k", sha256=UNKNOWN, variant="base", authors=False, name=name) is None


RECORD = {"source": "s", "psnr": 35.7999, "ssim": 0.968, "ssim_kind": "ssim_2d", "ie": None}


def test_the_text_of_a_figure_names_its_kind_of_ssim_and_the_same_measured_here():
    assert published_text(RECORD) == ("35.80 dB, SSIM (2D) 0.9680 (s)", "")
    found = {"psnr": 35.7912, "ssim": 0.96789, "ie": None}
    assert published_text({**RECORD, "measured": found})[1] == "35.79 dB, SSIM (2D) 0.9679"
    middlebury = {**RECORD, "ssim": None, "ie": 1.946, "measured": {**found, "ssim": None, "ie": 2}}
    assert published_text(middlebury) == ("35.80 dB, IE 1.946 (s)", "35.79 dB, IE 2.000")
    assert published_text({**RECORD, "measured": {**found, "psnr": None}})[1].startswith(
        "identical"
    )


def test_the_papers_figures_are_shown_only_where_the_paper_has_them():
    assert published("gopro", sha256=UNKNOWN, variant="small", authors=True) is None
    assert published("folder", sha256=UNKNOWN, variant="base", authors=True) is None


def test_the_figures_of_the_authors_are_shown_only_if_the_user_says_so():
    for authors, kind in ((True, "ssim_3d"), (False, "ssim_2d")):
        figure = published("vimeo90k", sha256=MMAGIC_VIMEO, variant="base", authors=authors)
        assert figure["ssim_kind"] == kind


def test_each_source_has_one_kind_of_ssim():
    kinds = {}
    for known in CHECKPOINTS:
        for figure in known.figures.values():
            kinds.setdefault(figure.source, set()).add(figure.ssim_kind)
    assert sorted(map(list, kinds.values())) == [["ssim_2d"], ["ssim_3d"]]
    assert set().union(*kinds.values()) <= set(get_args(Metric))


def test_figures_are_of_data_sets_that_can_be_measured():
    for known in CHECKPOINTS:
        assert set(known.figures) <= set(PROTOCOLS)
        assert all(0 < f.ssim < 1 for f in known.figures.values() if f.ssim is not None)


@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_the_paper_measured_every_variant(variant):
    snu = [f"snufilm-{level}" for level in ("easy", "medium", "hard", "extreme")]
    for dataset in ("vimeo90k", "ucf101", "middlebury", *snu):
        assert published(dataset, sha256=UNKNOWN, variant=variant, authors=True)
