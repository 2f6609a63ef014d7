"""An encoder in a thread that several callers share."""

from collections.abc import Sequence

import numpy as np

from valueflow.hives.encoder import Encoder, Part
from valueflow.judging.turns import Piece, Turns


class ThreadEncoder(Turns[Sequence[str], Part, np.ndarray]):
    """Texts -> unit vectors, shape (T, D), equal to those of `Encoder.embed`: callers take turns between its steps."""

    def __init__(self, encoder: Encoder, batch_size: int = 64) -> None:
        super().__init__(0)  # parts run one by one: together they would only keep a small call waiting for a large one
        self.encoder, self.batch_size = encoder, batch_size

    def cut(self, work: Sequence[str]) -> list[Piece[Part]]:
        """Return the steps of `Encoder.embed`."""
        return [Piece(part, len(part.rows), part.longest) for part in self.encoder.parts(work, self.batch_size)]

    def run(self, pieces: list[Part]) -> list[np.ndarray]:
        """Return the vectors of each part."""
        return [self.encoder.embed_part(part) for part in pieces]

    def join(self, pieces: list[Part], results: list[np.ndarray]) -> np.ndarray:
        """Return the vectors in the order of the texts."""
        z_TD = np.concatenate(results)
        z_TD[np.concatenate([part.rows for part in pieces])] = z_TD.copy()
        return z_TD
