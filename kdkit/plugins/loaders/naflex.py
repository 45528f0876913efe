"""SigLIP 2 NaFlex: images of any aspect ratio as a variable number of patches (arXiv:2502.14786, section 2.3.2)."""

from __future__ import annotations

import torch
from PIL.Image import Image
from torch import Tensor

from kdkit.plugins.loaders.transformers_encoder import TransformersEncoder, pooled


class NaFlexEncoder(TransformersEncoder):
    """A ``Siglip2Model``. An image is one tensor of a fixed shape, so that images of any aspect ratio form a batch."""

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (P + 1, C) float32: first its number of patches by height and width, then P patches.

        P is the image processor's ``max_num_patches``; the last ones are zero where the image has fewer.
        """
        found = self._image_processor(images=image, return_tensors="pt")
        patches: Tensor = found["pixel_values"][0].float()
        first = torch.zeros_like(patches[:1])
        first[0, :2] = found["spatial_shapes"][0]
        return torch.cat([first, patches])

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, P + 1, C) from :meth:`preprocess` -> (B, D) float32, not normalized."""
        like = next(self.model.parameters())
        shapes = pixels[:, 0, :2].long().to(like.device)
        places = torch.arange(pixels.shape[1] - 1, device=like.device)
        mask = (places < shapes.prod(1, keepdim=True)).to(torch.int32)
        features = self.model.get_image_features(  # type: ignore[operator]
            pixel_values=pixels[:, 1:].to(like), pixel_attention_mask=mask, spatial_shapes=shapes
        )
        return pooled(features)
