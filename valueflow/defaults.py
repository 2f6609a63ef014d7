"""How a text is scored if the caller sets nothing: shared by the API, the configs of jobs and the command line.

Imports nothing heavy, so that `valueflow --help` stays fast.
"""

from typing import Final

K: Final = 6  # texts in a window, the scored one included
M: Final = 3  # windows per text and value
SAMPLING: Final = "adaptive"  # how the anchors of a window are chosen
MIN_RELEVANCE: Final = 0.1  # of a text that counts in a profile
MIN_TEXTS: Final = 1  # of a value in a profile of the service; the job, whose profiles are published, wants 5
SEED: Final = 0
