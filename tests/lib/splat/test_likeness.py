"""PSNR, SSIM and the training loss, against numbers of other implementations and each other."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from toolroll.errors import RowError  # noqa: E402
from toolroll.splat import metrics  # noqa: E402
from toolroll.splat.losses import picture_loss, ssim  # noqa: E402


def pictures() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:48, 0:64].astype(float)
    one = np.stack([x / 63, y / 47, (np.sin(x / 5) + np.cos(y / 7) + 2) / 4], -1)
    return one, np.clip(0.9 * one + 0.05 + 0.03 * np.sin(x / 3)[..., None], 0, 1)


def test_vectors():
    one, other = pictures()
    assert metrics.mse(one, other) == pytest.approx(0.0012356272953, abs=1e-13)
    assert metrics.psnr(one, other) == pytest.approx(29.081125066, abs=1e-9)
    assert metrics.ssim(one, other) == pytest.approx(0.949249735, abs=1e-9)
    assert metrics.ssim(one, other, "same") == pytest.approx(0.939385881, abs=1e-9)


def test_vectors_in_bytes():
    one, other = map(metrics.in_bytes, pictures())
    assert metrics.psnr(one, other) == pytest.approx(29.027555918, abs=1e-9)
    assert metrics.ssim(one, other) == pytest.approx(0.947553355, abs=1e-9)


def test_a_mask_counts_what_it_covers_only():
    one, other = pictures()
    spoiled = other.copy()
    spoiled[:10, :10] = 0.0
    mask = np.ones(one.shape[:2], bool)
    mask[:10, :10] = False
    assert metrics.psnr(one, spoiled, mask) == metrics.psnr(one, other, mask) != metrics.psnr(one, other)
    wide = np.ones_like(mask)
    wide[:15, :15] = False  # no window whose middle is beyond reaches the spoiled corner
    assert metrics.ssim(one, spoiled, mask=wide) == metrics.ssim(one, other, mask=wide)
    assert metrics.ssim(one, other, mask=np.ones_like(mask)) == pytest.approx(metrics.ssim(one, other), abs=1e-15)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: (a, a[:-1]), "the pictures are of different sizes, 64 x 48 and 64 x 47"),
        (lambda a: (a[:10], a[:10]), "a picture of 64 x 10 has no window of 11 x 11 for SSIM"),
    ],
)
def test_pictures_that_cannot_be_compared(change, why):
    with pytest.raises(RowError, match=why):
        metrics.ssim(*change(pictures()[0]))


def test_a_mask_of_nothing():
    one, other = pictures()
    with pytest.raises(RowError, match="the mask has no pixel"):
        metrics.psnr(one, other, np.zeros(one.shape[:2], bool))


def test_equal_pictures():
    one = pictures()[0]
    assert metrics.psnr(one, one) == np.inf
    assert metrics.ssim(one, one) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(48, 64), (11, 11), (12, 40), (37, 11)])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_the_loss_and_its_gradient_are_those_of_the_definition(shape, weight):
    random = torch.Generator().manual_seed(0)
    made = torch.rand(*shape, 3, generator=random, dtype=torch.float64)
    truth = (made + 0.1 * torch.randn(*shape, 3, generator=random, dtype=torch.float64)).clamp(0, 1)
    exact = made.clone().requires_grad_()
    expected = (1 - weight) * (exact - truth).abs().mean() + weight * (1 - ssim(exact, truth))
    expected.backward()
    fast = made.float().requires_grad_()
    found = picture_loss(fast, truth.float(), weight)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=2e-5)
    assert float((fast.grad - exact.grad).abs().max()) <= 1e-3 * float(exact.grad.abs().max())


def test_the_loss_of_kernels_is_the_metric():
    one, other = (torch.from_numpy(picture).float() for picture in pictures())
    assert 1 - float(picture_loss(one, other, 1.0)) == pytest.approx(0.949249735, abs=2e-6)


def test_threads_change_no_bit():
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(90, 70, 3, generator=random)
    found = []
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            made = torch.rand(90, 70, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
            loss = picture_loss(made, truth, 0.2)
            loss.backward()
            found.append((loss.detach(), made.grad))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_picture_that_is_too_small_for_a_window_has_only_the_difference():
    one, other = torch.zeros(8, 8, 3), torch.full((8, 8, 3), 0.25)
    assert float(picture_loss(one, other, 0.2)) == 0.25
