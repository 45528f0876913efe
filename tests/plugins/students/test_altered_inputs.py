"""Random alterations: each row by its own seed, special tokens untouched."""

from __future__ import annotations

import math

import torch

from kdkit.plugins.students.altered_inputs import alter_images, alter_tokens

SEEDS = torch.tensor([3, 2**61, 0, 17, 5, 3])
START, END, PADDING, SIZE = 90, 91, 0, 92


def texts(rows: int, length: int = 40) -> torch.Tensor:
    tokens = torch.randint(1, START, (rows, length), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 30], tokens[:, 31:] = START, END, PADDING
    return tokens


def test_a_row_follows_from_itself_and_its_seed_alone() -> None:
    pixels = torch.randn(6, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    tokens = texts(6)
    images, words = alter_images(pixels, SEEDS), alter_tokens(tokens, SEEDS, size=SIZE, kept={START, END, PADDING})
    for rows in ([2], [5, 0, 3]):
        torch.testing.assert_close(alter_images(pixels[rows], SEEDS[rows]), images[rows])
        again = alter_tokens(tokens[rows], SEEDS[rows], size=SIZE, kept={START, END, PADDING})
        assert torch.equal(again, words[rows])
    assert not torch.allclose(alter_images(pixels[:1], SEEDS[1:2]), images[:1])


def test_images_of_one_color_keep_one_color_within_the_ranges() -> None:
    seeds = torch.arange(300)
    plain = torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1).expand(300, 3, 9, 9)
    altered = alter_images(plain, seeds)
    assert altered.shape == plain.shape
    torch.testing.assert_close(altered, altered[:, :, :1, :1].expand_as(altered))
    colors = altered[:, :, 0, 0].abs()
    assert colors.max() <= 2 * math.exp(1.0) + 1.4
    assert colors.std(dim=0).min() > 0.3


def test_views_show_nothing_but_the_image() -> None:
    pixels = torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(2)).expand(200, 3, 16, 16)
    altered = alter_images(pixels, torch.arange(200))
    spread = altered.flatten(2).std(dim=2)
    assert spread.min() > 0.01  # never a uniform border alone
    assert altered.isfinite().all()


def test_special_tokens_stay_and_none_is_drawn() -> None:
    tokens = texts(300)
    altered = alter_tokens(tokens, torch.arange(300), size=SIZE, kept={START, END, PADDING})
    special = (tokens == START) | (tokens == END) | (tokens == PADDING)
    assert torch.equal(altered[special], tokens[special])
    words = altered[~special]
    assert int(words.min()) > PADDING
    assert int(words.max()) < START
    changed = (altered != tokens).float().sum(1) / (~special).float().sum(1)
    assert 0.2 < changed.mean() < 0.35  # uniform between 0 and 0.6, less what is drawn again or special
    assert changed.max() < 0.85
