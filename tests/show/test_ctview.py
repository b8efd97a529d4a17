"""CTView from Python's side: what goes to the browser, and what a page without kernel is made of.

What the browser makes of it is in test_browser.py.
"""

import base64
import gzip
import html.parser
import io
import json
import re
from types import SimpleNamespace

import matplotlib
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from alden_lite.data.volume import Volume
from alden_lite.physics import hounsfield
from alden_lite.physics.hounsfield import grey_levels
from alden_lite.show.viewer import CTView, TooLargeError, difference_colours
from alden_lite.show.viewer.ctview import MODULE, STATIC_VARIABLE


def ct(seed=0, shape=(3, 20, 24)):
    """Whole HU from air to dense bone."""
    return np.random.default_rng(seed).integers(-1024, 3072, shape).astype(np.int16)


def sent(view):
    """(P, Z, Y, X) as the browser gets it."""
    return np.frombuffer(view._hu, "<i2").reshape(-1, *view._facts["shape"])


# The specification of pixels


def test_a_grey_is_the_window_in_255_steps_halves_rounded_up():
    hu = np.array([-1000, -160, -159, 40, 239, 240, 3000])
    assert grey_levels(hu, 40, 400).tolist() == [0, 0, 1, 128, 254, 255, 255]
    exact = 255 * hounsfield.window(ct().astype(float), -33.3, 517.25)
    assert np.abs(grey_levels(ct(), -33.3, 517.25) - exact).max() <= 0.5


def test_a_window_one_hu_wide_is_black_or_white():
    assert grey_levels(np.array([-1, 0, 1]), 0, 1).tolist() == [0, 128, 255]


def test_differences_of_one_size_have_mirrored_colours_and_zero_is_the_middle():
    table = matplotlib.colormaps["PuOr"].resampled(255)(np.arange(255), bytes=True)[:, :3]
    values = np.array([-900, -50, -25, 0, 25, 50, 900])
    expected = table[[0, 0, 127 - 64, 127, 127 + 64, 254, 254]]
    assert np.array_equal(difference_colours(values, 50), expected)
    brown, white, violet = table[[0, 127, 254]].astype(int)
    assert brown[0] > brown[2] and violet[2] > violet[0] and white.min() > 240


def test_a_window_or_range_without_width_is_refused():
    with pytest.raises(ValueError, match="above 0 HU"):
        grey_levels(ct(), 0, 0)
    with pytest.raises(ValueError, match="above 0 HU"):
        difference_colours(ct(), -1)


# What comes in


def test_one_slice_is_a_volume_of_one():
    view = CTView(ct()[0])
    assert view._facts["shape"] == [1, 20, 24] and view._facts["titles"] == ["CT"]
    assert np.array_equal(sent(view), ct()[None, :1])


def test_panels_keep_their_order_and_titles():
    view = CTView({"low dose": ct(0), "normal dose": torch.from_numpy(ct(1))})
    assert view._facts["titles"] == ["low dose", "normal dose"]
    assert np.array_equal(sent(view), np.stack([ct(0), ct(1)]))


def test_reals_are_rounded_to_whole_hu():
    noisy = torch.tensor([[0.4, 0.6, -0.6, 1e4]], requires_grad=True)
    assert sent(CTView(noisy.bfloat16())).ravel().tolist()[:3] == [0, 1, -1]
    assert sent(CTView(noisy)).ravel().tolist() == [0, 1, -1, 10000]


def test_a_volume_brings_its_name_and_spacing():
    view = CTView(Volume("someone", ct(), (2.5, 0.8, 0.7)))
    assert view._facts["titles"] == ["someone"]
    assert view._facts["spacing_mm"] == [0.8, 0.7]
    assert CTView({"a": SimpleNamespace(hu=ct(), spacing_mm=(5, 1, 1))})._facts["spacing_mm"] == [1, 1]


def test_given_spacing_may_be_one_number_two_or_three():
    for spacing in (0.7, (0.7, 0.7), (2.5, 0.7, 0.7)):
        assert CTView(ct(), spacing_mm=spacing)._facts["spacing_mm"] == [0.7, 0.7]
    assert CTView(ct())._facts["spacing_mm"] is None


def test_a_nifti_file_is_read_by_its_path(tmp_path):
    image = nibabel.Nifti1Image(ct()[:, ::-1, ::-1].T, np.diag([0.7, 0.7, 2.5, 1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    view = CTView(tmp_path / "scan.nii.gz")
    assert np.array_equal(sent(view)[0], ct())
    assert view._facts["titles"] == ["scan.nii.gz"]


def test_a_dicom_folder_is_read_by_its_path(tmp_path):
    for z, stored in enumerate(ct()):
        write_dicom(tmp_path / f"{z}.dcm", stored, z)
    view = CTView({"scan": str(tmp_path)})
    assert np.array_equal(sent(view)[0], ct())
    assert view._facts["spacing_mm"] == [0.7, 0.7]


def write_dicom(path, hu, z):
    tags = pydicom.Dataset()
    tags.file_meta = pydicom.dataset.FileMetaDataset()
    tags.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    tags.file_meta.MediaStorageSOPClassUID = tags.SOPClassUID = CTImageStorage
    tags.file_meta.MediaStorageSOPInstanceUID = tags.SOPInstanceUID = f"1.2.3.{z + 1}"
    tags.SeriesInstanceUID, tags.StudyInstanceUID, tags.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    tags.Modality, tags.PatientID, tags.InstanceNumber = "CT", "nobody", z + 1
    tags.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    tags.ImagePositionPatient, tags.ImageOrientationPatient = [0, 0, 2.5 * z], [1, 0, 0, 0, 1, 0]
    tags.PixelSpacing, tags.SliceThickness = [0.7, 0.7], 2.5
    tags.Rows, tags.Columns = hu.shape
    tags.SamplesPerPixel, tags.PhotometricInterpretation = 1, "MONOCHROME2"
    tags.BitsAllocated, tags.BitsStored, tags.HighBit, tags.PixelRepresentation = 16, 16, 15, 1
    tags.RescaleSlope, tags.RescaleIntercept, tags.RescaleType = 1, -1024, "HU"
    tags.PixelData = (hu + 1024).astype("<i2").tobytes()
    tags.save_as(path, enforce_file_format=True)


def test_labels_go_along_with_their_names():
    ids = np.arange(480).reshape(20, 24) % 3
    view = CTView(ct()[0], labels=ids, label_names=("nothing", "liver", "spleen"))
    assert np.array_equal(np.frombuffer(view._labels, np.uint8).reshape(20, 24), ids)
    assert view._facts["label_names"]["2"] == "spleen"


def test_a_difference_is_a_panel_of_two_others():
    panels = {"low": ct(0), "denoised": ct(1), "normal": ct(2)}
    facts = CTView(panels, difference=True)._facts["difference"]
    assert facts == {"of": [1, 2], "title": "denoised − normal"}
    assert CTView(panels, difference=("low", "normal"))._facts["difference"]["of"] == [0, 2]


five = {str(number): ct() for number in range(5)}


@pytest.mark.parametrize(
    ("hu", "options", "text"),
    [
        (np.full((4, 4), np.nan), {}, "'CT' holds NaN or infinite values"),
        ({"a": ct(), "b": torch.full((3, 20, 24), torch.inf)}, {}, "'b' holds NaN or infinite"),
        (ct(shape=(1, 3, 4, 4)), {}, r"has shape \(1, 3, 4, 4\): a viewer takes \(Y, X\) or \(Z, Y, X\)"),
        (np.zeros(5), {}, "has shape"),
        (np.zeros((0, 4)), {}, "has shape"),
        (np.zeros((4, 4), dtype=complex), {}, "complex128: HU are whole or real numbers"),
        (np.full((4, 4), 4e4), {}, "reaches from 40000 to 40000: HU fit into int16"),
        ({}, {}, "1 to 4 panels, got 0"),
        (five, {}, "1 to 4 panels, got 5"),
        ({name: five[name] for name in "0123"}, {"difference": True}, "got 5, the difference included"),
        ({"a": ct()}, {"difference": True}, "a difference takes two panels"),
        ({"a": ct(), "b": ct()}, {"difference": ("a", "c")}, "no panel is called 'c'; there are a, b"),
        ({"a": ct(), "b": ct()[:, :19]}, {}, r"same size .*'b': \(3, 19, 24\)"),
        (ct(), {"labels": np.zeros((3, 20, 23), int)}, "not the same grid"),
        (ct(), {"labels": np.zeros((3, 20, 24))}, "labels are whole numbers 0 to 255"),
        (ct(), {"spacing_mm": 0}, "spacing_mm must be above 0 mm"),
        (ct(), {"slice": 3}, r"slice 3 is outside a volume of 3 \(0 to 2\)"),
        (ct(), {"width": 0}, "width must be above 0 HU, got 0"),
        (ct(), {"level": np.inf}, "level must be a finite number"),
        (ct(), {"difference_hu": -5}, "difference_hu must be above 0 HU"),
        (ct(), {"opacity": 2}, r"opacity must lie in \[0, 1\]"),
        (ct(), {"roi": {"kind": "star", "x": 1, "y": 2, "r": 3}}, "roi is None or has the form"),
        (ct(), {"roi": {"kind": "circle", "x": 1, "y": 2}}, "roi is None or has the form"),
        (ct(), {"probe": {"x": 1, "y": np.nan}}, "probe must hold finite numbers"),
    ],
)
def test_what_cannot_be_shown_is_refused(hu, options, text):
    with pytest.raises(ValueError, match=text):
        CTView(hu, **options)


def test_an_option_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="CTView has no option lable_names"):
        CTView(ct(), lable_names=["liver"])


def test_pixels_of_different_sizes_are_refused():
    panels = {str(mm): Volume("x", ct(), (1.0, mm, mm)) for mm in (0.7, 0.8)}
    with pytest.raises(ValueError, match="pixels of different sizes"):
        CTView(panels)


# Traits


def test_pixels_are_sent_once_and_never_again():
    view, messages = CTView({"a": ct(0), "b": ct(1)}, difference=True), []
    view._send = lambda message, buffers=None: messages.append((message, buffers))
    for change in ({"level": -600.5}, {"width": 1500}, {"slice": 2}, {"difference_hu": 30}, {"opacity": 1}):
        view.set_trait(*next(iter(change.items())))
    view.roi = {"kind": "circle", "x": 5, "y": 6, "r": 3}
    assert len(messages) == 6
    assert all(not buffers and len(json.dumps(message)) < 200 for message, buffers in messages)


def test_a_region_holds_pixels_whose_centres_lie_inside():
    view = CTView({"a": ct(0), "b": ct(1)}, difference=True, slice=1)
    assert view.roi_statistics() == {}
    view.roi = {"kind": "box", "x0": 3, "y0": 4, "x1": 6, "y1": 9}
    part = ct(0)[1, 4:9, 3:6].astype(float)
    assert view.roi_statistics()["a"] == pytest.approx((part.mean(), part.std()))
    less = part - ct(1)[1, 4:9, 3:6]
    assert view.roi_statistics()["a − b"] == pytest.approx((less.mean(), less.std()))
    view.roi = {"kind": "circle", "x": 8.5, "y": 9.5, "r": 1}  # a cross of five pixels
    cross = ct(0)[1, [9, 8, 10, 9, 9], [8, 8, 8, 7, 9]].astype(float)
    assert view.roi_statistics()["a"] == pytest.approx((cross.mean(), cross.std()))


def test_a_region_beside_the_picture_has_no_mean():
    view = CTView(ct(), roi={"kind": "box", "x0": 30, "y0": 0, "x1": 40, "y1": 9})
    assert np.isnan(view.roi_statistics()["CT"]).all()


# Notebooks


def test_a_live_notebook_gets_the_widget_and_words(monkeypatch):
    monkeypatch.delenv(STATIC_VARIABLE, raising=False)
    data, _ = CTView(ct())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data
    assert data["text/plain"].startswith("CT in four windows")


def test_a_published_notebook_gets_a_page_and_no_widget(monkeypatch):
    monkeypatch.setenv(STATIC_VARIABLE, "1")
    view = CTView(ct())
    data, _ = view._repr_mimebundle_()
    assert set(data) == {"text/html", "text/plain"}
    assert view.comm is None  # nothing is stored with the notebook for a widget nobody can show
    view.level = 100
    assert state_of(view.to_html())["level"] == 100


def test_of_a_volume_too_large_for_a_page_the_slices_around_the_current_one_are_shown(monkeypatch):
    monkeypatch.setenv(STATIC_VARIABLE, "1")
    monkeypatch.setattr(
        CTView.to_html, "__kwdefaults__", CTView.to_html.__kwdefaults__ | {"max_bytes": 200_000}
    )
    view = CTView(ct(shape=(60, 64, 64)), slice=50)
    state = state_of(view._repr_mimebundle_()[0]["text/html"])
    first, depth = state["_facts"]["first_slice"], state["_facts"]["shape"][0]
    assert 3 < depth < 30 and first < 50 < first + depth
    assert state["slice"] + first == 50
    assert state["_facts"]["note"] == f"On this page: slices {first} to {first + depth - 1} of 0 to 59"


# The page without kernel


class Tags(html.parser.HTMLParser):
    """Attributes by tag, and the text of scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts = {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.setdefault(tag, []).append(dict(attributes))

    def handle_data(self, data):
        if self.lasttag == "script" and data.strip():
            self.scripts.append(data)


def inner(fragment):
    (frame,) = Tags(fragment).found["iframe"]
    return Tags(frame["srcdoc"])


def state_of(fragment):
    return json.loads(inner(fragment).scripts[0])[0]


def pixels_of(fragment, name="_hu"):
    state, packed = json.loads(inner(fragment).scripts[0])
    kind = {"_hu": "<i2", "_labels": "u1"}[name]
    values = np.frombuffer(gzip.decompress(base64.b64decode(packed[name])), kind)
    return values.reshape(-1, *state["_facts"]["shape"])


def test_a_page_holds_the_same_pixels_and_state():
    labels = ct() > 0
    view = CTView({"a": ct(0), "b": ct(1)}, labels=labels, level=-600, slice=2, difference=True)
    page = view.to_html()
    assert np.array_equal(pixels_of(page), np.stack([ct(0), ct(1)]))
    assert np.array_equal(pixels_of(page, "_labels")[0], labels)
    state = state_of(page)
    assert (state["level"], state["width"], state["slice"]) == (-600, 400, 2)
    assert state["_facts"]["difference"] == view._facts["difference"]


def test_a_page_asks_nobody_for_anything():
    page = CTView(ct()).to_html()
    (frame,) = Tags(page).found["iframe"]
    assert frame["sandbox"] == "allow-scripts"
    policy = inner(page).found["meta"][2]["content"]
    assert policy.startswith("default-src 'none'")
    addresses = set(re.findall(r"https?://[^\"'\s)]+", frame["srcdoc"]))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place


def test_a_page_is_ascii_so_that_no_host_can_garble_it():
    assert CTView({"Größe − <b>": ct()}).to_html().isascii()


def test_titles_are_text_and_cannot_leave_their_place():
    title = '</script><script>alert("1")</script>'
    page = CTView({title: ct()}).to_html()
    assert len(inner(page).scripts) == 2
    assert state_of(page)["_facts"]["titles"] == [title]
    assert "alert" not in "".join(str(tag) for tag in Tags(page).found if tag != "iframe")


def test_where_no_script_runs_there_is_a_picture_of_four_windows_with_words():
    (image,) = Tags(CTView(ct(shape=(3, 40, 50)), slice=1).to_html()).found["img"]
    assert image["alt"] == (
        "CT in four windows, abdomen (L 50 W 400 HU), lung (L -600 W 1500 HU), bone (L 400 W 1800 HU), "
        "full (L 1024 W 4096 HU), slice 1. Rows: CT."
    )
    png = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
    expected = [grey_levels(ct(shape=(3, 40, 50))[1], *window) for window in ((50, 400), (-600, 1500))]
    assert png.shape == (40, 200)
    assert np.array_equal(png[:, :100], np.hstack(expected))


def test_a_page_above_its_budget_says_what_to_do():
    view = CTView(ct(shape=(8, 64, 64)))
    whole = len(view.to_html())
    with pytest.raises(
        TooLargeError, match=r"about 0\.\d MB.*max_bytes=130,000.*downsample=\d, fewer slices"
    ) as info:
        view.to_html(max_bytes=130_000)
    assert 0 <= info.value.share < 1
    assert len(view.to_html(max_bytes=whole)) == whole
    assert len(view.to_html(max_bytes=whole - 1, downsample=2)) < whole
    labels = np.random.default_rng(0).integers(0, 255, (8, 64, 64))
    with pytest.raises(TooLargeError, match=r"about 0\.\d MB"):
        CTView(ct(shape=(8, 64, 64)), labels=labels).to_html(max_bytes=whole + 10_000)
    with pytest.raises(TooLargeError, match="does not suffice for the viewer itself"):
        view.to_html(max_bytes=10)


def test_down_sampling_averages_squares_and_widens_pixels():
    view = CTView(ct(shape=(2, 9, 11)), spacing_mm=0.7, labels=ct(shape=(2, 9, 11)) > 0)
    page = view.to_html(downsample=2)
    means = ct(shape=(2, 9, 11))[:, :8, :10].reshape(2, 4, 2, 5, 2).mean((2, 4))
    assert np.array_equal(pixels_of(page)[0], np.rint(means))
    assert np.array_equal(pixels_of(page, "_labels")[0], ct(shape=(2, 9, 11))[:, :8:2, :10:2] > 0)
    assert state_of(page)["_facts"]["spacing_mm"] == [1.4, 1.4]
    assert "2 x 2 pixels averaged" in state_of(page)["_facts"]["note"]


def test_a_page_may_hold_some_of_the_slices():
    page = CTView(ct(), slice=0).to_html(slices=(1, 3))
    assert np.array_equal(pixels_of(page)[0], ct()[1:3])
    assert (state_of(page)["slice"], state_of(page)["_facts"]["first_slice"]) == (0, 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"slices": (2, 5)}, r"slices \(2, 5\) are not inside a volume of 3"),
        ({"slices": (2, 2)}, "not inside"),
        ({"downsample": 0}, "downsample must be 1 to 20, got 0"),
        ({"downsample": 21}, "downsample must be 1 to 20"),
    ],
)
def test_a_page_of_nothing_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        CTView(ct()).to_html(**options)


def test_the_module_depends_on_nothing_and_makes_no_html_of_text():
    source = MODULE.read_text(encoding="utf-8")
    assert not re.search(
        r"^\s*import\b|\bimport\(|\bfetch\(|innerHTML|insertAdjacentHTML|\beval\(", source, re.M
    )
    assert "</script" not in source
