"""Chooses `interest_cosine` for a build: how similar interests of a user may be to share one search.

The interests of a trained model are often nearly equal. Their similarity is measured exactly, in memory, with the
interest vectors that the model itself gave for its golden histories. `choose-index` measures the same with histories of
the user's choice, and the speed besides.
"""

from dataclasses import dataclass

import numpy as np

from indexer.progress import Progress
from indexer.tuning.measure import exact_recall, searched_exactly
from mind.artifact import Artifact

COSINES = (1.0, 0.995, 0.99, 0.98, 0.95, 0.9, 0.5)
"""The values of `interest_cosine` that may be tried, the first of which searches each interest."""
MIN_SHARE = 0.995
"""Minimum share of a user's exact best 50 that fewer searches must find, on average over users."""
MIN_ITEMS = 50_000
"""Minimum number of items for which a search costs Milvus more than ranking more hits costs the server.

With 1,654 items and one search instead of four, throughput in users/s was 0.85 times as high for single users, and 1.4
times as high for requests of 64.
"""
MAX_SEARCHES = 0.5
"""Maximum share of the searches that may be left. A search that stands for others costs 1.4 times as much."""
_NEARLY_FEWEST = 1.15  # times the fewest searches: a greater cosine is safer for users unlike the golden histories


@dataclass(frozen=True)
class InterestSearches:
    """The chosen `interest_cosine`, and what it means for the golden histories."""

    cosine: float
    share: float
    """Mean share of a user's exact best 50 that is found."""
    searches: float
    """Mean number of searches per user."""
    interests: float
    """Mean number of interests per user, which is the number of searches without a choice."""
    users: int
    """Number of golden histories."""


def choose_cosine(model: Artifact, on_progress: Progress = lambda stage, done, total: None) -> InterestSearches | None:
    """Choose the greatest cosine that needs nearly the fewest searches, of those that find enough and save enough.

    A cosine finds enough if the mean share is at least `MIN_SHARE` even when it is two standard errors lower. It saves
    enough if at most `MAX_SEARCHES` of the searches are left. Without such a cosine, each interest is searched.

    Returns:
        None if there is nothing to choose: the model has no golden interest, or fewer than `MIN_ITEMS` items.
    """
    vectors = model.weights.golden_interest_vectors
    vectors = vectors[np.any(vectors, axis=(1, 2))]
    if not len(vectors) or len(model.weights.item_id) < MIN_ITEMS:
        return None
    workload = searched_exactly(model, vectors, on_progress)
    share, interests = exact_recall(workload, 1)
    tried = [InterestSearches(1.0, float(share.mean()), interests, interests, len(share))]
    for cosine in COSINES[1:]:
        share, searches = exact_recall(workload, cosine)
        surely = share.mean() - 2 * share.std() / np.sqrt(len(share))
        if surely >= MIN_SHARE and searches <= MAX_SEARCHES * interests:
            tried.append(InterestSearches(cosine, float(share.mean()), searches, interests, len(share)))
    fewest = min(one.searches for one in tried)
    return next(one for one in tried if one.searches <= _NEARLY_FEWEST * fewest)
