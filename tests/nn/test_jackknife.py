"""Groups that know nothing of the order, and errors that are exact where the answer is known."""

import pytest
import torch

from steerable.nn import jackknife as module

from ..mutants import altered

WRONG = {
    "equal sizes taken for granted": ("rest = n / m - 1.0", "rest = len(used) - 1 + 0 * m"),
    "spread, not error": ("(gaps.square() / rest).mean(0)", "gaps.square().mean(0)"),
    "a factor of the number of groups": ("rest).mean(0)", "rest).sum(0)"),
    "left in, not left out": ("(one != g)", "(one == g)"),
}


def check_means(room):
    """Of a mean over groups of any size: sum over g of m / (n - m) (mean_g - mean)^2 / groups."""
    sizes = torch.tensor([3, 1, 0, 7, 2, 12] + [0] * 10)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(int(m), 2, generator=generator, dtype=torch.float64) for m in sizes]
    sums = torch.stack([part.sum(0) for part in rows])

    def mean(kept):
        return sums[kept].sum(0) / sizes[kept].sum()

    n, whole, used = int(sizes.sum()), torch.cat(rows).mean(0), int((sizes > 0).sum())
    terms = [
        len(part) / (n - len(part)) * (part.mean(0) - whole) ** 2 for part in rows if len(part)
    ]
    expected = (torch.stack(terms).sum(0) / used).sqrt()
    torch.testing.assert_close(room.jackknife(mean, sizes), expected, rtol=1e-9, atol=0)


def test_means():
    check_means(module)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_errors_are_noticed(name):
    with pytest.raises(AssertionError):
        check_means(altered("nn.jackknife", *WRONG[name]))


def test_classes_that_take_turns_are_in_every_group():
    items = torch.arange(3200)
    for classes in (2, 10, 16):
        table = torch.zeros(module.GROUPS, classes)
        group = module.group_of(items)
        table.index_put_((group, items % classes), torch.tensor(1.0), accumulate=True)
        expected = 3200 / (module.GROUPS * classes)
        # A chi-square with (16 - 1) (classes - 1) degrees of freedom, five deviations.
        free = 15 * (classes - 1)
        square = ((table - expected) ** 2 / expected).sum()
        assert square < free + 15 + 5 * (2 * (free + 15)) ** 0.5
    assert torch.equal(module.group_of(items[5:9]), group[5:9])
