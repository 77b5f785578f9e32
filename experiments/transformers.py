"""Two transformers that label every pixel, for chapter 7e: one looks everywhere, one in windows.

Both cut the image into square tokens, as the Vision Transformer does (Dosovitskiy et al., "An image is worth
16x16 words", ICLR 2021), and one linear layer scores the pixels of a token from its vector. Windows that are
shifted by half their side in every second block are the idea of Swin (Liu et al., ICCV 2021); ours are filled
with zeros at the border, where theirs are rolled around and masked.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Every token asks all others: (..., tokens, width) -> the same shape. `heads` must divide the width."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def weights(self, tokens):
        """How much each token (the row) reads of every other (the column): (..., heads, tokens, tokens)."""
        query, key = self._in_heads(self.query(tokens)), self._in_heads(self.key(tokens))
        return (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)

    def forward(self, tokens):
        read = self.weights(tokens) @ self._in_heads(self.value(tokens))
        return self.out(read.transpose(-3, -2).flatten(-2))

    def _in_heads(self, tokens):
        return tokens.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class Block(nn.Module):
    """Attention, then two layers for every token by itself; each adds to the map: (N, h, w, width) -> same.

    With `window`, tokens ask only those of their window of so many by so many; with `shifted` the windows lie
    half a window further up and left, and those at the border are filled with zeros.
    """

    def __init__(self, width, heads, window=None, shifted=False):
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted else 0
        self.attention, self.before = Attention(width, heads), nn.LayerNorm(width)
        self.alone = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens):
        tokens = tokens + self._asked(self.before(tokens))
        return tokens + self.alone(tokens)

    def _asked(self, tokens):
        n, height, width, channels = tokens.shape
        if self.window is None:
            return self.attention(tokens.flatten(1, 2)).view(tokens.shape)
        side, shift = self.window, self.shift
        if shift:
            tokens = F.pad(tokens, (0, 0, shift, shift, shift, shift))
        down, across = tokens.shape[1] // side, tokens.shape[2] // side
        windows = tokens.view(n, down, side, across, side, channels).permute(0, 1, 3, 2, 4, 5)
        asked = self.attention(windows.flatten(3, 4)).view(windows.shape)
        asked = asked.permute(0, 1, 3, 2, 4, 5).reshape(tokens.shape)
        return asked[:, shift : shift + height, shift : shift + width]


def waves(width, places):
    """A first position embedding (1, width, places, places): sines and cosines of the row and of the column.

    Their wave lengths grow from 2 pi to 2 pi x `places` tokens (Vaswani et al., "Attention is all you need",
    2017, section 3.5, in two dimensions). Neighbours start alike; training changes all of it.
    """
    lengths = places ** torch.linspace(0, 1, width // 4)
    angles = torch.arange(places) / lengths[:, None]
    along = torch.cat([angles.sin(), angles.cos()])[None]
    rows, columns = (
        along[..., None].expand(-1, -1, -1, places),
        along[..., None, :].expand(-1, -1, places, -1),
    )
    return torch.cat([rows, columns], dim=1).contiguous()


class Transformer(nn.Module):
    """(N, 1, H, W) -> scores (N, classes, H, W), for heights and widths that are multiples of the token.

    Args:
        token: side of a token in pixels.
        width, depth, heads: channels of a token's vector, number of blocks, heads of each attention.
        places: tokens along each side that have a position embedding of their own. Without windows an image
            of another size gets them resized, as is usual; with windows they start again after so many.
        window: None, or the side of the windows in tokens; then images are multiples of window x token.

    Raises ValueError where the image's size does not fit.
    """

    def __init__(self, token=8, width=64, depth=8, heads=4, places=16, window=None, classes=3):
        super().__init__()
        self.step = token * (window or 1)
        self.window = window
        self.embed = nn.Conv2d(1, width, token, stride=token)
        self.position = nn.Parameter(waves(width, places))
        self.blocks = nn.ModuleList(
            Block(width, heads, window, shifted=window is not None and number % 2 == 1)
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.scores = nn.ConvTranspose2d(width, classes, token, stride=token)

    def forward(self, image):
        if any(size % self.step for size in image.shape[-2:]):
            height, width = image.shape[-2:]
            raise ValueError(
                f"the image is {height} x {width}, expected multiples of {self.step}; pad or crop it."
            )
        tokens = self.embed(image)
        tokens = (tokens + self.places(tokens.shape[-2:])).permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.scores(self.norm(tokens).permute(0, 3, 1, 2))

    def places(self, size):
        """The position embeddings for so many tokens, (1, width, *size)."""
        side = self.position.shape[-1]
        if self.window:
            repeats = (-(-tokens // side) for tokens in size)
            return self.position.repeat(1, 1, *repeats)[..., : size[0], : size[1]]
        if tuple(size) == (side, side):
            return self.position
        return F.interpolate(self.position, size, mode="bicubic", align_corners=False)


def in_windows():
    """The transformer of windows: tokens of 4 pixels, windows of 8 x 8 tokens, five blocks."""
    return Transformer(token=4, width=48, depth=5, places=8, window=8)
