"""Corruptions of images: known answers, more of them at each severity, and nothing random left behind."""

from itertools import pairwise

import pytest
import torch

from pyroformer import Spec
from pyroformer.choices import SpecError
from pyroformer.priors import SettingError
from pyroformer.tasks import Digits, Shift
from pyroformer.tasks.shifts import CORRUPTIONS, SEVERITIES, add_noise, blur, occlude, reduce_contrast, rotate

KINDS = tuple(CORRUPTIONS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    """Real ones: for a rotation, white noise would be as far from itself at any angle."""
    return Digits().load().test.x


@pytest.mark.parametrize("sd", [0.1, 0.5])
def test_noise_has_its_sd(sd):
    added = (add_noise(torch.zeros(50, 20, 20), sd, generator()) - 0).double().flatten()
    error = sd / (2 * len(added)) ** 0.5
    assert abs(float(added.std()) - sd) < 5 * error
    assert abs(float(added.mean())) < 5 * sd / len(added) ** 0.5
    assert abs(float(added.std()) - 1.05 * sd) > 5 * error  # another sd would be noticed


@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
@pytest.mark.parametrize("shape", [(9, 9), (8, 8), (3, 8, 8)])
def test_a_quarter_turn_is_rot90(degrees, shape):
    x = torch.rand(4, *shape, generator=generator())
    turned = rotate(x, torch.full((4,), float(degrees)))
    torch.testing.assert_close(turned, torch.rot90(x, degrees // 90, (-2, -1)), atol=1e-5, rtol=0)
    wrong = torch.rot90(x, degrees // 90 + 1, (-2, -1))
    assert not torch.allclose(turned, wrong, atol=1e-2)


def test_a_half_turn_of_images_that_are_no_squares_and_each_its_own_angle():
    x = torch.rand(2, 6, 10, generator=generator())
    turned = rotate(x, torch.tensor([180.0, 0.0]))
    torch.testing.assert_close(turned, torch.stack([x[0].flip(0, 1), x[1]]), atol=1e-5, rtol=0)


def test_pixels_turn_as_points_do_in_images_that_are_no_squares():
    x = torch.zeros(1, 21, 41)
    x[0, 10, 26] = 1  # 6 to the right of the middle; counter-clockwise by 90 degrees it is 6 above
    turned = rotate(x, torch.tensor([90.0]))
    assert (turned[0] == turned.max()).nonzero().tolist() == [[4, 20]]


def test_blur_keeps_the_sum_of_a_spot_and_spreads_it_by_its_sd():
    x = torch.zeros(1, 41, 41, dtype=torch.float64)
    x[0, 20, 20] = 3.0
    blurred = blur(x, 0.05)
    assert float(blurred.sum()) == pytest.approx(3.0, rel=1e-6)
    away = torch.arange(41) - 20.0
    variance = float((blurred[0].sum(0) * away**2).sum() / 3)
    assert variance == pytest.approx((0.05 * 41) ** 2 + 1 / 12, rel=0.01)  # of the kernel and of the pixel
    torch.testing.assert_close(blur(torch.full((2, 3, 8, 8), 0.7), 0.14), torch.full((2, 3, 8, 8), 0.7))


def test_contrast_moves_each_image_to_its_mean():
    x = torch.tensor([[[0.0, 1.0]], [[0.2, 0.4]]])
    expected = torch.tensor([[[0.25, 0.75]], [[0.25, 0.35]]])
    torch.testing.assert_close(reduce_contrast(x, 0.5), expected)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 6, 10)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 1.0])
def test_occlusion_covers_its_share_of_every_image(shape, share):
    covered = occlude(torch.zeros(20, *shape), share, generator()) / 0.5
    area = covered.flatten(1).double().mean(1)
    torch.testing.assert_close(area, torch.full_like(area, share), atol=1e-6, rtol=0)
    assert float(covered.min()) >= 0 and float(covered.max()) <= 1 + 1e-6
    if 0 < share < 1:
        assert not torch.allclose(covered[0], covered[1])  # each at a place of its own


@pytest.mark.parametrize("kind", KINDS)
def test_each_severity_is_farther_from_the_clean_images(kind, images):
    distances = [float((Shift(kind, s)(images) - images).square().mean().sqrt()) for s in (0, *SEVERITIES)]
    assert distances[0] == 0
    assert all(more > less + 1e-3 for less, more in pairwise(distances)), distances


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_is_the_same_by_its_seed_and_leaves_the_global_state_alone(kind, images):
    torch.manual_seed(3)
    before, clean = torch.get_rng_state(), images.clone()
    once = Shift(kind, 3)(images, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(Shift(kind, 3)(images, 7), once)
    assert torch.equal(images, clean)
    assert once.shape == images.shape and once.dtype == images.dtype
    if kind in ("noise", "rotation", "occlusion"):
        assert not torch.equal(Shift(kind, 3)(images, 8), once)


def test_severities_share_their_noise_and_kinds_do_not(images):
    one, five = (Shift("noise", s)(images) - images for s in (1, 5))
    torch.testing.assert_close(5 * one, five, atol=1e-5, rtol=0)
    covered = (Shift("occlusion", 1)(images) != images).any(2)
    assert 0.2 < float(covered.double().mean()) < 0.4


def test_shifts_that_do_not_exist():
    for kind, severity in (("fog", 1), ("noise", 6), ("noise", -1)):
        with pytest.raises(ValueError, match="expected one of noise, blur, rotation, contrast, occlusion"):
            Shift(kind, severity)


def test_digits_offer_them_and_say_which_set_is_which():
    plain, data = Digits().load(), Digits(shifts=("blur", "noise"), shift_examples=50).load()
    assert list(plain.shifted) == ["noisy"] and plain.shifts == {}
    assert list(data.shifts) == [f"{kind}-{s}" for kind in ("blur", "noise") for s in SEVERITIES]
    assert list(data.shifted) == ["noisy", *data.shifts]
    assert data.shifts["noise-2"] == Shift("noise", 2) and data.shifts["noise-2"].amount == 0.2
    assert torch.equal(data.shifted["noisy"].x, plain.shifted["noisy"].x)
    assert all(data.source["sizes"][name] == len(data.shifted[name].y) == 50 for name in data.shifts)
    labels = data.shifted["blur-1"].y
    assert all(torch.equal(data.shifted[name].y, labels) for name in data.shifts)
    assert list(Digits(shifts=("noise",)).load().shifted["noise-1"].x.shape) == [497, 8, 8]


def test_a_shifted_set_is_its_shift_of_the_test_images():
    data = Digits(shifts=KINDS).load()
    for name, shift in data.shifts.items():
        assert torch.equal(data.shifted[name].x, shift(data.test.x, 0))
        assert torch.equal(data.shifted[name].y, data.test.y)


@pytest.mark.parametrize("shifts", [("fog",), ("noise", "noise"), "noise"])
def test_shifts_that_are_refused(shifts):
    with pytest.raises(SettingError, match="a list of some of noise, blur, rotation, contrast, occlusion, each once"):
        Digits(shifts=shifts)


@pytest.mark.parametrize(
    "shifts, place",
    [(["fog"], "shifts.0: got fog; accepted:"), ("noise", "shifts: "), (5, "shifts: "), (True, "shifts: ")],
)
def test_shifts_of_a_spec_that_are_refused(shifts, place):
    each = "" if isinstance(shifts, list) else "a list, each "
    with pytest.raises(SpecError, match=rf"task\.digits\.{place}.*{each}one of noise, blur, rotation"):
        Spec(task={"digits": {"shifts": shifts}})
    spec = Spec(task={"digits": {"shifts": ["noise"]}})
    assert spec.to_dict()["task"]["digits"]["shifts"] == ["noise"]
