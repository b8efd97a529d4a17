"""How good is a denoised slice? Every figure names window, range and reference. Taught in chapters 03, 09.

The same error of 9 HU is 33 dB over a window of 400 HU and 53 dB over 4,096 HU, so PSNR and SSIM here always
take a window, clip both slices to it, and use its width as the data range.

Pictures of the same RMSE can have coarse or fine noise, sharp or soft edges. What a physicist measures says
which: noise power spectrum, MTF, contrast-to-noise ratio, noise by organ; and how large the patient is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.signal.windows import tukey
from skimage.metrics import structural_similarity

from alden_lite.hounsfield import WINDOWS, Window

__all__ = [
    "Judge",
    "LabelError",
    "LabelNoise",
    "NoisePower",
    "RadialNoisePower",
    "bias_hu",
    "cnr",
    "edge_mtf",
    "errors_by_label",
    "gmsd",
    "image_metrics",
    "load_lpips",
    "lpips_distance",
    "mae_hu",
    "mtf50_per_mm",
    "noise_by_label",
    "noise_power_spectrum",
    "perceptual_distance",
    "psnr_db",
    "radial_nps",
    "regions_of_interest",
    "rmse_hu",
    "ssim",
    "texture_hu",
    "vif",
    "water_equivalent_diameter_mm",
]

EVALUATION = WINDOWS["evaluation"]
Pixels = np.ndarray | torch.Tensor
Judge = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""HU (B, 1, H, W) to feature maps (B, C, h, w): frozen, such as `pvm.load_pvm("efficientnet_lite0")`."""
PictureDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two pictures (1, 3, Y, X) in [0, 1] to one number, such as `load_lpips()`."""


def rmse_hu(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Root mean squared error in HU after clipping both to the window.

    Args:
        image, reference: same shape, in HU.
        window: [-160, 240] HU by default, the only range that fits the paper's PSNR 33.18 with RMSE 8.92.

    Raises:
        ValueError: on different shapes, NaN or infinity.

    >>> rmse_hu(torch.zeros(2, 2), torch.full((2, 2), 10.0))
    10.0
    """
    a, b = _clipped(image, reference, window)
    return float((a - b).square().mean().sqrt())


def mae_hu(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Mean absolute error in HU after clipping both to the window: large errors count less than in `rmse_hu`.

    Arguments and errors as for `rmse_hu`.

    >>> mae_hu(torch.tensor([0.0, 0.0]), torch.tensor([2.0, -4.0]))
    3.0
    """
    a, b = _clipped(image, reference, window)
    return float((a - b).abs().mean())


def bias_hu(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Mean error in HU, image less reference, after clipping both to the window; noise averages out.

    Near the window's ends clipping makes a bias of its own: noise around -160 HU is cut on one side. For
    HU as they are see `errors_by_label`. Arguments and errors as for `rmse_hu`.

    >>> bias_hu(torch.tensor([0.0, 0.0]), torch.tensor([2.0, -4.0]))
    1.0
    """
    a, b = _clipped(image, reference, window)
    return float((a - b).mean())


def psnr_db(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the window's width. Infinite for equal slices.

    Arguments and errors as for `rmse_hu`.
    """
    error = rmse_hu(image, reference, window=window)
    return math.inf if error == 0 else 20 * math.log10(window.width / error)


def ssim(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Structural similarity of two slices (Y, X), in [-1, 1]: scikit-image's, with the Gaussian weights of
    Wang et al., IEEE TIP 13:600 (2004), over the window's width.

    Raises:
        ValueError: on different shapes, NaN, or anything but one slice of at least 11 x 11.
    """
    a, b = _clipped(image, reference, window)
    if a.ndim != 2 or min(a.shape) < 11:
        raise ValueError(f"SSIM takes one slice (Y, X) of at least 11 x 11, got {tuple(a.shape)}")
    return float(
        structural_similarity(
            a.numpy(),
            b.numpy(),
            data_range=window.width,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@torch.no_grad()
def gmsd(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Gradient magnitude similarity deviation of two slices (Y, X), at least 0; 0 is best.

    Compares how steep edges are, place by place, and tells how much that varies over the slice: equal noise
    everywhere is forgiven, a few blurred edges are not. An offset in HU hardly shows. piq's, on the window
    scaled to [0, 1], over means of 2 x 2 pixels.

    Raises:
        ValueError: on different shapes, NaN, or anything but one slice of at least 4 x 4.

    Source: Xue et al., IEEE TIP 23:684 (2014), with its constant for [0, 255], 170.
    """
    import piq

    a, b = _pictures(image, reference, window, smallest=4)
    return float(piq.gmsd(a, b, data_range=1.0))


@torch.no_grad()
def vif(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Visual information fidelity of two slices (Y, X): the share of the reference's information left.

    At least 0, 1 for equal slices, and above 1 where the image has more contrast; an offset does not
    show. Noise of the reference counts as information. piq's form in the pixel domain, over four scales,
    on the window scaled to [0, 255].

    Raises:
        ValueError: on different shapes, NaN, anything but one slice of at least 41 x 41, or a reference that
            is constant in the window: it holds no information.

    Source: Sheikh & Bovik, IEEE TIP 15:430 (2006).
    """
    import piq

    a, b = _pictures(image, reference, window, smallest=41)
    if b.min() == b.max():
        raise ValueError("the reference is constant in the window: it holds no information to be left over")
    return float(piq.vif_p(a, b, data_range=1.0))


LPIPS_WEIGHTS = {
    "vgg16-397923af.pth": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "lpips_weights.pt": "https://github.com/photosynthesis-team/photosynthesis.metrics/releases/download/v0.4.0/"
    "lpips_weights.pt",
}
_RELU_OF_VGG16 = ("3", "8", "15", "22", "29")  # the last of each resolution, as LPIPS takes them


def load_lpips(folder: str | Path | None = None) -> PictureDistance:
    """LPIPS on VGG-16, for `lpips_distance`. Its weights (528 MB) do not come with this package.

    Args:
        folder: where the two files of `LPIPS_WEIGHTS` lie; torch's own cache of downloads when None.

    Raises:
        FileNotFoundError: if a file is missing, with what to fetch. Never random weights.

    Source: Zhang et al., CVPR 2018, with the linear weights that piq publishes.
    """
    import piq
    from torchvision.models import vgg

    home = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    if missing := [name for name in LPIPS_WEIGHTS if not (home / name).is_file()]:
        wanted = "\n".join(f"  {LPIPS_WEIGHTS[name]}" for name in missing)
        raise FileNotFoundError(
            f"LPIPS needs weights that are not in {home}. Fetch, and put there:\n{wanted}\n"
            "Without them use perceptual_distance with a judge."
        )
    stored, linear = (
        torch.load(home / name, map_location="cpu", weights_only=True) for name in LPIPS_WEIGHTS
    )
    backbone = vgg.make_layers(vgg.cfgs["D"])
    backbone.load_state_dict(
        {key.removeprefix("features."): w for key, w in stored.items() if key.startswith("features.")}
    )
    return piq.ContentLoss(backbone.eval(), layers=_RELU_OF_VGG16, weights=linear, normalize_features=True)


@torch.no_grad()
def lpips_distance(
    image: torch.Tensor, reference: torch.Tensor, *, network: PictureDistance, window: Window = EVALUATION
) -> float:
    """Learned perceptual distance (LPIPS) of two slices (Y, X), at least 0; 0 for equal slices.

    Learned from what people say of photographs, not of CT; the paper's table has it. The same grey three
    times over stands for colour, and the window's ends for black and white.

    Args:
        image, reference: (Y, X) in HU, at least 32 x 32.
        network: from `load_lpips`, or anything that compares two pictures (1, 3, Y, X) in [0, 1].
        window: its ends become 0 and 1.

    Raises:
        ValueError: on different shapes, NaN, or anything but one slice of at least 32 x 32.
    """
    a, b = (picture.expand(-1, 3, -1, -1) for picture in _pictures(image, reference, window, smallest=32))
    return float(network(a, b))


@torch.no_grad()
def perceptual_distance(
    image: torch.Tensor, reference: torch.Tensor, *, judge: Judge, training_pvm: str | None = None
) -> float:
    """How differently a network sees two slices: LPIPS without its learned weights (OURS).

    Args:
        image, reference: (Y, X) in HU.
        judge: frozen network with feature maps; its own window and statistics apply.
        training_pvm: name of the network the generator was trained with, which must not judge.

    Returns:
        Mean over taps and places of |a/|a| - b/|b||^2 over channels, in [0, 4]; 0 for equal slices.

    Raises:
        ValueError: on different shapes, NaN, or a judge that trained the generator.

    Source: Zhang et al., CVPR 2018, eq. 1 with unit weights.
    """
    a, b = _checked(image, reference)
    if training_pvm is not None and getattr(judge, "name", None) == training_pvm:
        raise ValueError(f"{training_pvm} trained this generator: judge with another network")
    maps_a, maps_b = judge(a[None, None]), judge(b[None, None])
    distances = [
        (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()
        for x, y in zip(maps_a, maps_b, strict=True)
    ]
    return float(torch.stack(distances).mean())


def image_metrics(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    judge: Judge | None = None,
    training_pvm: str | None = None,
) -> dict[str, float]:
    """PSNR (dB), SSIM and RMSE (HU) in [-160, 240] HU, and the judge's distance if there is a judge."""
    values = {
        "psnr_db": psnr_db(image, reference),
        "ssim": ssim(image, reference),
        "rmse_hu": rmse_hu(image, reference),
    }
    if judge is not None:
        values["judge"] = perceptual_distance(image, reference, judge=judge, training_pvm=training_pvm)
    return values


def texture_hu(hu: Pixels, *, tissue: Pixels) -> float:
    """Texture of a tissue: standard deviation in HU of what a 7 x 7 mean leaves over.

    Noise counts, and so does fine structure; over-smoothing lowers it.

    Args:
        hu: (Y, X) in HU.
        tissue: (Y, X) bool, where to look: best without edges, as `data.smooth_tissue` gives it.

    Raises:
        ValueError: on NaN, or a mask that is empty or of another shape.

    >>> board = 10.0 * (-1) ** (np.arange(9)[:, None] + np.arange(9))
    >>> round(texture_hu(board, tissue=np.ones((9, 9), bool)), 1)
    10.0
    """
    values = _finite(hu)
    rest = values - ndimage.uniform_filter(values, 7)
    return float(rest[_mask(tissue, values, "tissue")].std())


@dataclass(frozen=True)
class NoisePower:
    """Noise power of an n x n region: `power` (n, n) in HU² mm², (fy, fx), zero frequency in the middle;
    `frequency_per_mm` (n,), the frequencies of either axis, ascending, in cycles/mm."""

    power: np.ndarray
    frequency_per_mm: np.ndarray

    @property
    def variance_hu2(self) -> float:
        """Integral over all frequencies: the variance of the detrended noise in HU²."""
        return float(self.power.sum() * (self.frequency_per_mm[1] - self.frequency_per_mm[0]) ** 2)


class RadialNoisePower(NamedTuple):
    """Noise power averaged over directions: `frequency, power = radial_nps(...)`, each (bins,)."""

    frequency_per_mm: np.ndarray
    power: np.ndarray  # HU² mm²

    @property
    def peak_per_mm(self) -> float:
        """Frequency with the most power, in cycles/mm."""
        return float(self.frequency_per_mm[self.power.argmax()])

    @property
    def mean_per_mm(self) -> float:
        """Mean frequency weighted by power, in cycles/mm: lower means blotchier noise (TG-233's f_av)."""
        return float(np.average(self.frequency_per_mm, weights=self.power))


def noise_power_spectrum(noise: Pixels, *, pixel_mm: float, detrend: str = "mean") -> NoisePower:
    """How much of the noise is coarse, how much is fine: `dx dy / (nx ny) * <|DFT(noise)|²>`.

    Args:
        noise: (K, n, n) in HU, K realisations or regions of one kind of noise, without anatomy: the image
            less its noise-free version, or the difference of two independent scans over sqrt(2).
        pixel_mm: side of a pixel.
        detrend: what is taken off each region first: its `mean`, or a quadratic `polynomial` fitted to it,
            which also removes cupping (and six of its n² degrees of freedom).

    Returns:
        NoisePower; the zero frequency is 0 after detrending.

    Raises:
        ValueError: on another shape, no region, regions below 8 x 8, NaN, regions that are constant, a pixel
            that is not above 0 mm, or an unknown `detrend`.

    Source: ICRU Report 87 (2012); Samei et al. (AAPM TG-233), Med Phys 46:e735 (2019).
    """
    regions = _finite(noise)
    if regions.ndim != 3 or len(regions) < 1 or regions.shape[1] != regions.shape[2] or regions.shape[1] < 8:
        raise ValueError(
            f"noise must be (K, n, n) with K of 1 or more and n of 8 or more, got {regions.shape}: "
            "add an axis to a single region, cut long ones with regions_of_interest"
        )
    _check_pixel(pixel_mm)
    n = regions.shape[1]
    rest = regions - _trend(regions, detrend)
    if np.abs(rest).max() <= 1e-9 * np.abs(regions).max():
        raise ValueError("the regions hold no noise: each is constant, or nothing but its trend")
    power = (np.abs(np.fft.fft2(rest)) ** 2).mean(0) * (pixel_mm / n) ** 2
    return NoisePower(np.fft.fftshift(power), np.fft.fftshift(np.fft.fftfreq(n, pixel_mm)))


def radial_nps(nps: NoisePower, *, bins: int | None = None) -> RadialNoisePower:
    """Noise power averaged over rings, from just above zero frequency (which detrending takes) to Nyquist.

    Args:
        nps: from `noise_power_spectrum`. Streaks make it depend on direction, which a ring hides.
        bins: rings of equal width, 1 to n // 2; n // 2 when None. A ring's frequency is its pixels' mean.

    Raises:
        ValueError: if `bins` is out of range.
    """
    n = len(nps.frequency_per_mm)
    bins = n // 2 if bins is None else bins
    if not 1 <= bins <= n // 2:
        raise ValueError(f"an {n} x {n} spectrum has 1 to {n // 2} rings, got bins={bins}")
    distance = np.hypot(nps.frequency_per_mm[:, None], nps.frequency_per_mm)
    steps = distance / (nps.frequency_per_mm[1] - nps.frequency_per_mm[0])
    # Rings begin half a step from zero: with n // 2 of them, each is centred on a whole step.
    ring = np.floor((steps - 0.5) * bins / (n // 2) + 1).astype(int)
    count, frequency, power = (
        np.bincount(ring.ravel(), weights)[1 : bins + 1]
        for weights in (None, distance.ravel(), nps.power.ravel())
    )
    return RadialNoisePower(frequency / count, power / count)


def regions_of_interest(
    image: Pixels, *, size: int, step: int | None = None, mask: Pixels | None = None
) -> np.ndarray:
    """Square regions of a slice that lie wholly inside a mask, for `noise_power_spectrum`.

    Args:
        image: (Y, X), any unit.
        size: side of a region in pixels.
        step: pixels from one region to the next; `size` when None, so that none overlap.
        mask: (Y, X) bool; the whole slice when None.

    Returns:
        (K, size, size), row by row.

    Raises:
        ValueError: if shapes differ, `size` or `step` is below 1, or no region fits.
    """
    slice_ = _finite(image)
    where = _mask(mask, slice_, "mask") if mask is not None else np.ones(slice_.shape, bool)
    step = size if step is None else step
    if slice_.ndim != 2 or not 1 <= size <= min(slice_.shape) or step < 1:
        raise ValueError(f"regions of size {size}, step {step} cannot be cut from a slice {slice_.shape}")
    values, inside = (
        np.lib.stride_tricks.sliding_window_view(a, (size, size))[::step, ::step] for a in (slice_, where)
    )
    regions = values[inside.all((2, 3))]
    if len(regions) == 0:
        raise ValueError(f"no region of {size} x {size} fits inside the mask: choose a smaller size or step")
    return regions


def edge_mtf(
    hu: Pixels,
    *,
    pixel_mm: float,
    radius_mm: float,
    centre_mm: tuple[float, float] = (0.0, 0.0),
    reach_mm: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Modulation transfer function (MTF) from the edge of a round rod: how sharp, at every frequency.

    Pixels sorted by distance from the rod's centre sample the edge ten times finer than the grid does. The
    derivative of that edge is the line spread; its Fourier transform, 1 at zero frequency, is the MTF. For a
    denoiser the result holds for this contrast and noise only (a task transfer function).

    Args:
        hu: (Y, X) in HU, with one rod. Average repeated scans first: noise looks like sharpness.
        pixel_mm: side of a pixel.
        radius_mm: radius of the rod, many pixels: the edge is taken for straight.
        centre_mm: (y, x) of the rod's centre from the middle of the slice.
        reach_mm: how far inside and outside the edge to look; ten pixels when None.

    Returns:
        `(frequency_per_mm, mtf)`, from 0 to twice the Nyquist frequency, as the edge is finer than the grid.

    Raises:
        ValueError: if the slice is not 2-D or holds NaN, a length is not above 0, the ring of pixels around
            the edge leaves the slice, reaches the rod's centre or has too few pixels, or there is no edge.

    Source: Richard et al., Med Phys 39:4115 (2012); TG-233. Deviation: of the line spread only
    the outer quarters are tapered (Tukey's window); a Hann window over all of it makes the MTF too good.
    """
    slice_ = _finite(hu)
    _check_pixel(pixel_mm)
    reach = 10 * pixel_mm if reach_mm is None else reach_mm
    if slice_.ndim != 2 or not 0 < reach < radius_mm:
        raise ValueError(
            f"needs one slice (Y, X), got {slice_.shape}, and 0 < reach_mm < radius_mm, "
            f"got {reach:g} and {radius_mm:g}"
        )
    y, x = (
        (np.arange(side) - (side - 1) / 2) * pixel_mm - middle
        for side, middle in zip(slice_.shape, centre_mm, strict=True)
    )
    if radius_mm + reach > min(-y[0], y[-1], -x[0], x[-1]):
        raise ValueError("the rod's edge, with reach_mm around it, does not lie inside the slice")
    step, half = pixel_mm / 10, math.ceil(10 * reach / pixel_mm)
    place = np.hypot(y[:, None], x) - radius_mm  # mm outside the edge
    bins = np.round(place / step).astype(int) + half
    ring = (bins >= 0) & (bins <= 2 * half)
    count, where, value = (
        np.bincount(bins[ring], weights, 2 * half + 1) for weights in (None, place[ring], slice_[ring])
    )
    found = count > 0  # symmetry leaves a few bins empty
    sampled = where[found] / count[found]
    if np.diff(sampled, prepend=-reach, append=reach).max() > pixel_mm / 2:
        raise ValueError("too few pixels around the edge: choose a larger rod or smaller pixels")
    edge = np.interp(np.arange(-half, half + 1) * step, sampled, value[found] / count[found])
    spread = np.diff(edge)
    if abs(edge[-1] - edge[0]) <= 1e-6 * max(1.0, np.abs(edge).max()):
        raise ValueError(f"no edge at {radius_mm:g} mm: the slice has the same HU inside and outside")
    length = 8 * len(spread)  # zero-padded: a smooth curve
    transform = np.abs(np.fft.rfft(spread * tukey(len(spread)), length))
    frequency = np.fft.rfftfreq(length, step)
    shown = frequency <= 1 / pixel_mm
    return frequency[shown], transform[shown] / transform[0]


def mtf50_per_mm(frequency_per_mm: np.ndarray, mtf: np.ndarray) -> float:
    """Frequency in cycles/mm at which the MTF first falls to one half, interpolated between two samples.

    Raises:
        ValueError: if it never does.

    >>> mtf50_per_mm(np.array([0.0, 0.25, 0.5]), np.array([1.0, 0.75, 0.25]))
    0.375
    """
    below = np.flatnonzero(mtf <= 0.5)
    if len(below) == 0 or below[0] == 0:
        raise ValueError("the MTF must start above one half and fall below it: look at the edge")
    ends = slice(below[0] - 1, below[0] + 1)
    return float(np.interp(-0.5, -mtf[ends], frequency_per_mm[ends]))


def cnr(hu: Pixels, inside: Pixels, outside: Pixels) -> float:
    """Contrast-to-noise ratio: |mean inside - mean outside| / standard deviation outside, the background.

    Rose: a detail of some size is seen reliably from about 5, after averaging over the detail's area. A
    denoiser that smooths everything raises the CNR too: read it with the MTF.

    Args:
        hu: any shape, in HU.
        inside, outside: bool masks of that shape, without common pixels.

    Raises:
        ValueError: on different shapes, NaN, an empty or common mask, or a background without noise.

    >>> cnr(np.array([50.0, 50.0, -10.0, 10.0]), np.arange(4) < 2, np.arange(4) >= 2)
    5.0
    """
    values = _finite(hu)
    detail, background = _mask(inside, values, "inside"), _mask(outside, values, "outside")
    if (detail & background).any():
        raise ValueError("inside and outside share pixels: the background must not hold the detail")
    if np.ptp(values[background]) == 0:
        raise ValueError("the background is constant: without noise there is no contrast-to-noise ratio")
    contrast = abs(values[detail].mean() - values[background].mean())
    return float(contrast / values[background].std())


def water_equivalent_diameter_mm(hu: Pixels, *, pixel_mm: float, mask: Pixels | None = None) -> float:
    """Diameter of the water cylinder that attenuates like this slice of the patient.

    `2 sqrt(A/pi * (mean HU / 1000 + 1))` over an area A around the patient: air adds nothing.

    Args:
        hu: (Y, X) in HU.
        pixel_mm: side of a pixel.
        mask: (Y, X) bool with the whole patient inside; the whole slice when None. Leave out the table.

    Raises:
        ValueError: on different shapes, NaN, an empty mask, a pixel not above 0 mm, or padding (values below
            -1500 HU, which would count as less than nothing) in the mask.

    Source: McCollough et al., AAPM Report 220 (2014).
    """
    values = _finite(hu)
    if values.ndim != 2:
        raise ValueError(f"needs one slice (Y, X), got {values.shape}")
    _check_pixel(pixel_mm)
    chosen = values if mask is None else values[_mask(mask, values, "mask")]
    if chosen.min() < -1500:
        raise ValueError(f"{chosen.min():.0f} HU is padding: set it to -1000 or leave it out of the mask")
    water_mm2 = float((chosen / 1000 + 1).sum()) * pixel_mm**2
    return 2 * math.sqrt(max(water_mm2, 0) / math.pi)


class LabelNoise(NamedTuple):
    """Noise of one organ: standard deviation in HU and how many pixels it was taken from."""

    sigma_hu: float
    pixels: int


def noise_by_label(noise: Pixels, labels: Pixels, names: Mapping[int, str]) -> dict[str, LabelNoise]:
    """Noise of each organ, in HU: noise is not one number, it differs from lung to pelvis.

    Args:
        noise: any shape, in HU, without anatomy: the slice less its noise-free version, or the difference of
            two independent scans over sqrt(2). The difference of a nested pair is the *added* noise alone.
        labels: label ids of the same shape.
        names: name by id. Ids without a name are not reported, nor organs of fewer than two pixels.

    Returns:
        LabelNoise by name, in the order of `names`; the standard deviation is about the organ's own mean.

    Raises:
        ValueError: on different shapes, NaN, or when no named organ is there.

    >>> noise_by_label(np.array([3.0, -3.0, 9.0]), np.array([5, 5, 0]), {5: "liver"})
    {'liver': LabelNoise(sigma_hu=3.0, pixels=2)}
    """
    values, ids = _finite(noise), np.asarray(labels)
    if ids.shape != values.shape:
        raise ValueError(f"shapes differ: noise {values.shape} and labels {ids.shape}")
    found = {name: values[ids == label] for label, name in names.items()}
    rows = {name: LabelNoise(float(v.std()), v.size) for name, v in found.items() if v.size >= 2}
    if not rows:
        raise ValueError(f"none of the {len(names)} named organs has two pixels or more here")
    return rows


class LabelError(NamedTuple):
    """Error of one organ in HU: root mean square, mean absolute, and mean (image less reference)."""

    rmse_hu: float
    mae_hu: float
    bias_hu: float


def errors_by_label(
    image: Pixels, reference: Pixels, labels: Pixels, names: Mapping[int, str]
) -> dict[str, LabelError]:
    """Error of each organ, in HU as they are: not clipped to a window, for lung and bone lie outside it.

    A slice's error is mostly that of its noisiest organ, and biases of two organs may cancel.

    Args:
        image, reference: any shape, in HU.
        labels: label ids of the same shape; 0 is no organ, and left out.
        names: name by id, such as `dict(enumerate(organs.GROUPS, start=1))`. Ids without a name are left out,
            organs without a pixel too.

    Returns:
        LabelError by name, in the order of `names`.

    Raises:
        ValueError: on different shapes, NaN, or when no named organ is there.

    >>> errors_by_label([3.0, -3.0, 9.0], [0.0, 0.0, 0.0], [5, 5, 0], {5: "liver"})
    {'liver': LabelError(rmse_hu=3.0, mae_hu=3.0, bias_hu=0.0)}
    """
    values, truth, ids = _finite(image), _finite(reference), np.asarray(labels)
    if not values.shape == truth.shape == ids.shape:
        raise ValueError(
            f"shapes differ: image {values.shape}, reference {truth.shape} and labels {ids.shape}"
        )
    error = values - truth
    found = {name: error[ids == label] for label, name in names.items() if label != 0}
    rows = {
        name: LabelError(math.sqrt((e**2).mean()), float(np.abs(e).mean()), float(e.mean()))
        for name, e in found.items()
        if e.size
    }
    if not rows:
        raise ValueError(f"none of the {len(found)} named organs is here")
    return rows


def _trend(regions: np.ndarray, kind: str) -> np.ndarray:
    """What detrending takes off, (K, n, n) or (K, 1, 1)."""
    if kind == "mean":
        return regions.mean((1, 2), keepdims=True)
    if kind != "polynomial":
        raise ValueError(f"unknown detrend {kind!r}: choose 'mean' or 'polynomial'")
    n = regions.shape[1]
    y, x = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-1, 1, n)] * 2, indexing="ij"))
    basis, _ = np.linalg.qr(np.stack([np.ones(n * n), x, y, x * x, x * y, y * y], 1))  # (n², 6), orthonormal
    flat = regions.reshape(-1, n * n)
    return (flat @ basis @ basis.T).reshape(regions.shape)


def _finite(values: Pixels) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if torch.is_tensor(values) else values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinite HU: no metric means anything then")
    return array


def _mask(mask: Pixels, like: np.ndarray, name: str) -> np.ndarray:
    where = np.asarray(mask)
    if where.shape != like.shape:
        raise ValueError(f"shapes differ: {name} {where.shape} and image {like.shape}")
    if where.dtype != bool:
        raise ValueError(f"{name} must be boolean, got {where.dtype}: compare label ids with ==")
    if not where.any():
        raise ValueError(f"{name} is empty: not one pixel is chosen")
    return where


def _check_pixel(pixel_mm: float) -> None:
    if not 0 < pixel_mm < math.inf:
        raise ValueError(f"pixel_mm must be above 0, got {pixel_mm}")


def _clipped(
    image: torch.Tensor, reference: torch.Tensor, window: Window
) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = _checked(image, reference)
    return a.clamp(window.low, window.high), b.clamp(window.low, window.high)


def _pictures(
    image: torch.Tensor, reference: torch.Tensor, window: Window, *, smallest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both slices as pictures (1, 1, Y, X), the window's ends at 0 and 1."""
    a, b = _clipped(image, reference, window)
    if a.ndim != 2 or min(a.shape) < smallest:
        raise ValueError(f"needs one slice (Y, X) of at least {smallest} x {smallest}, got {tuple(a.shape)}")
    x, y = (((t - window.low) / window.width).clamp(0, 1)[None, None] for t in (a, b))
    return x, y


def _checked(image: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (
        torch.as_tensor(np.asarray(t) if not torch.is_tensor(t) else t).detach().cpu().float()
        for t in (image, reference)
    )
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("a slice holds NaN or infinite HU: no metric means anything then")
    return a, b
