"""Tensors described, not held: rectangles of bytes that lie in files.

Every step of a conversion (fusing query, key and value, cutting a tensor for a rank,
joining ranks again) only moves whole rows or ranges of columns. So a tensor is described
here by where its bytes lie, the steps are arithmetic on the descriptions, and the bytes
move once, at the end, from the source file to their place in the result (`copying`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mindtune.errors import UserError

# Bytes per element, by torch's name of the dtype.
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


class Source(Protocol):
    """Somewhere bytes lie: a file, a record of a file, or memory."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes at `offset`; raise UserError if they are not there."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of a view: `rows` rows of `width` bytes, all from one source.

    It covers the view's rows from `row` and its bytes from `column` of each of them. Its
    first row starts at byte `start` of `source`, each further row `pitch` bytes later.
    """

    row: int
    column: int
    rows: int
    width: int
    source: Source
    start: int
    pitch: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor of `shape` and `dtype` made of patches, which cover it exactly once.

    A tensor is seen as `rows` (its first dimension) of `row_bytes` bytes each. The patches
    are ordered by row, then by column.
    """

    shape: tuple[int, ...]
    dtype: str
    patches: tuple[Patch, ...]

    @property
    def rows(self) -> int:
        """Length of the first dimension (1 for a scalar)."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * ITEM_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def stored(
    source: Source, start: int, shape: tuple[int, ...], dtype: str, pitch: int | None = None
) -> View:
    """The tensor at byte `start` of `source`, its rows `pitch` bytes apart (default: dense)."""
    width = math.prod(shape[1:]) * ITEM_BYTES[dtype]
    rows = shape[0] if shape else 1
    if rows == 0 or width == 0:
        return View(shape, dtype, ())
    patch = Patch(0, 0, rows, width, source, start, width if pitch is None else pitch)
    return View(shape, dtype, (patch,))


def take_rows(view: View, start: int, stop: int) -> View:
    """Rows `start` to `stop` (exclusive) of a view."""
    patches = []
    for p in view.patches:
        low, high = max(p.row, start), min(p.row + p.rows, stop)
        if low < high:
            begin = p.start + (low - p.row) * p.pitch
            patches.append(
                Patch(low - start, p.column, high - low, p.width, p.source, begin, p.pitch)
            )
    return View((stop - start, *view.shape[1:]), view.dtype, tuple(patches))


def take_columns(view: View, start: int, stop: int) -> View:
    """Columns `start` to `stop` (exclusive, in elements) of a matrix."""
    item = ITEM_BYTES[view.dtype]
    first, last = start * item, stop * item
    patches = []
    for p in view.patches:
        low, high = max(p.column, first), min(p.column + p.width, last)
        if low < high:
            begin = p.start + low - p.column
            patches.append(Patch(p.row, low - first, p.rows, high - low, p.source, begin, p.pitch))
    return View((view.shape[0], stop - start), view.dtype, tuple(patches))


def stack_rows(views: Sequence[View]) -> View:
    """The views one under the other (torch.cat along dimension 0)."""
    head = _alike(views, slice(1, None))
    patches: list[Patch] = []
    row = 0
    for view in views:
        for p in view.patches:
            moved = Patch(p.row + row, p.column, p.rows, p.width, p.source, p.start, p.pitch)
            joined = _joined(patches[-1], moved) if patches else None
            if joined:
                patches[-1] = joined
            else:
                patches.append(moved)
        row += view.rows
    return View((row, *head.shape[1:]), head.dtype, tuple(patches))


def stack_columns(views: Sequence[View]) -> View:
    """The views side by side (torch.cat of matrices along dimension 1)."""
    head = _alike(views, slice(0, 1))
    patches = []
    column = 0
    for view in views:
        patches += [
            Patch(p.row, p.column + column, p.rows, p.width, p.source, p.start, p.pitch)
            for p in view.patches
        ]
        column += view.row_bytes
    patches.sort(key=lambda p: (p.row, p.column))
    width = sum(view.shape[1] for view in views)
    return View((head.shape[0], width), head.dtype, tuple(patches))


def _joined(upper: Patch, lower: Patch) -> Patch | None:
    """One patch for two, when the lower goes on where the upper ends, in the source too."""
    same_column = (upper.column, upper.width, upper.pitch) == (
        lower.column,
        lower.width,
        lower.pitch,
    )
    follows = upper.row + upper.rows == lower.row
    if upper.source is not lower.source or not same_column or not follows:
        return None
    if upper.start + upper.rows * upper.pitch != lower.start:
        return None
    rows = upper.rows + lower.rows
    return Patch(upper.row, upper.column, rows, upper.width, upper.source, upper.start, upper.pitch)


def _alike(views: Sequence[View], dimensions: slice) -> View:
    """The first view, once all have its dtype and the dimensions that must agree."""
    head = views[0]
    for view in views[1:]:
        if view.dtype != head.dtype or view.shape[dimensions] != head.shape[dimensions]:
            raise UserError(
                f"tensors that belong together differ: {head.dtype} {list(head.shape)} "
                f"and {view.dtype} {list(view.shape)}"
            )
    return head
