"""What every aligner promises: two spaces, maps between them, and a state that is all of it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdkit.core.plugin_system.catalogue import Family
from kdkit.testing.contract import Contract, once
from kdkit.testing.tensors import assert_finite, assert_near

SIGNALS = ("image", "text")
WIDTHS = ((12, 8), (8, 8), (8, 12))


class AlignerContract(Contract):
    """Subclass with ``name``.

    Attributes:
        rows: how many paired rows the aligner is fitted on.
    """

    family: ClassVar[Family] = "aligner"
    rows: ClassVar[int] = 64

    def features(self, width: int, seed: int) -> dict[str, Tensor]:
        """Paired rows (rows, width) of ``image`` and ``text``, of unequal lengths, with a common structure."""
        random = torch.Generator().manual_seed(seed)
        common = torch.randn(self.rows, 4, generator=random) @ torch.randn(4, width, generator=random)
        return {signal: common + 0.3 * torch.randn(self.rows, width, generator=random) for signal in SIGNALS}

    def fitted(self, in_dim: int = 12, out_dim: int = 8, seed: int = 0) -> Any:
        """A new aligner, fitted to an anchor."""
        aligner = self.make(in_dim=in_dim, out_dim=out_dim)
        aligner.fit(self.features(in_dim, 1), self.features(out_dim, 2), seed=seed)
        return aligner.requires_grad_(False).eval()  # as core uses it

    @once
    def aligner(self) -> Any:
        """A fitted aligner from width 12 to 8, which no check changes."""
        return self.fitted()

    def test_shapes(self) -> None:
        """``encode`` gives (B, out_dim) and ``decode`` (B, in_dim), finite, for any widths of the two spaces."""
        for in_dim, out_dim in WIDTHS:
            aligner = self.fitted(in_dim, out_dim)
            for signal, x in self.features(in_dim, 3).items():
                z = aligner.encode(signal, x)
                back = aligner.decode(signal, z)
                assert_finite("after fitting", {f"encoded {signal}": z, f"decoded {signal}": back})
                for what, found, width in (("encode", z, out_dim), ("decode", back, in_dim)):
                    wanted = (self.rows, width)
                    assert found.shape == wanted, f"{what} {in_dim} -> {out_dim}: expected {wanted}, got {found.shape}"
                    assert found.dtype == x.dtype, f"{what}: expected {x.dtype}, got {found.dtype}"

    def test_deterministic(self) -> None:
        """Fitted twice with the same seed it is the same, whatever torch's global seed, which it leaves alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first = self.fitted().state_dict()
            torch.manual_seed(2)
            aligner = self.make(in_dim=12, out_dim=8)
            before = torch.random.get_rng_state()
            aligner.fit(self.features(12, 1), self.features(8, 2), seed=0)
            unmoved = torch.equal(before, torch.random.get_rng_state())
        for name, x in first.items():
            assert_near(f"'{name}', fitted again", aligner.state_dict()[name], x, 1e-6, fix="draw from 'seed' alone")
        assert unmoved, "fitting moves torch's global seed; use a generator or torch.random.fork_rng"

    def test_rows_are_independent(self) -> None:
        """A row alone is encoded as in a batch."""
        x, aligner = self.features(12, 3)["image"], self.aligner()
        alone = torch.cat([aligner.encode("image", row) for row in torch.split(x, 1)])
        assert_near("a row alone and in a batch", alone, aligner.encode("image", x))

    def test_state_round_trip(self) -> None:
        """``state_dict`` is all of it: loaded into a new object it encodes and decodes the same."""
        aligner, again = self.aligner(), self.make(in_dim=12, out_dim=8)
        assert isinstance(again, nn.Module), f"expected an nn.Module, got {type(again).__name__}"
        again.load_state_dict(aligner.state_dict())
        loaded: Any = again.requires_grad_(False).eval()
        x = self.features(12, 3)["image"]
        z = aligner.encode("image", x)
        assert_near("encoded after a state round trip", loaded.encode("image", x), z, 1e-6)
        assert_near("decoded after a state round trip", loaded.decode("image", z), aligner.decode("image", z), 1e-6)

    def test_inputs_unchanged(self) -> None:
        """Fitting and encoding change neither the features nor the anchor."""
        x, anchor = self.features(12, 1), self.features(8, 2)
        aligner = self.make(in_dim=12, out_dim=8)
        aligner.fit(x, anchor)
        aligner.encode("image", x["image"])
        for what, found, wanted in (("features", x, self.features(12, 1)), ("anchor", anchor, self.features(8, 2))):
            for signal in SIGNALS:
                assert torch.equal(found[signal], wanted[signal]), f"the {what} '{signal}' were changed in place"

    def test_no_gradient(self) -> None:
        """Fitted under ``no_grad``, as core does it; what it encodes wants no gradient."""
        aligner = self.make(in_dim=12, out_dim=8)
        with torch.no_grad():
            aligner.fit(self.features(12, 1), self.features(8, 2))
        aligner.requires_grad_(False).eval()
        assert not aligner.encode("text", self.features(12, 3)["text"]).requires_grad, "an encoded row wants a gradient"

    def test_bf16(self) -> None:
        """Under bf16 autocast it encodes nearly the same, finite."""
        x = self.features(12, 3)["image"]
        with torch.autocast("cpu", torch.bfloat16):
            z = self.aligner().encode("image", x)
        assert_finite("in bf16", {"encoded image": z})
        assert_near("in bf16", z.float(), self.aligner().encode("image", x), 0.05)
