"""Dynamic routing (arXiv 1904.08030, algorithm 1), written once for all libraries with NumPy's functions.

`xp` is the library: NumPy for arrays in memory, CuPy for arrays on a GPU. This module knows nothing of servers or
files.
"""

from collections.abc import Callable
from typing import Any

from mind.config import HyperParameters
from mind.weights import Weights

Array = Any
"""An array of the library `xp`."""

SHARPNESS = 5.0
"""Routing logits that start at items of the history are this many times the cosine with the item."""
SAME = 0.9999
"""Cosine from which two items count as equal when the starts of interests are chosen."""
SHORTEST = 1e-9
"""Length below which a vector has no direction."""


class Routing:
    """Turns histories into interest vectors. Its arrays stay in the memory of `xp`."""

    def __init__(self, xp: Any, weights: Weights, hyper_parameters: HyperParameters) -> None:
        """Compute everything that does not depend on a request. The item table is not used."""
        self._xp = xp
        self._routing_logits = xp.asarray(weights.routing_logits)
        self._recency_logits = xp.asarray(weights.recency_logits) if hyper_parameters.residual else None
        self._focus = xp.asarray(weights.focus)
        self._projection = None if weights.projection is None else xp.asarray(weights.projection)
        self._bounded = hyper_parameters.bounded_update
        rounds = hyper_parameters.routing_iterations
        over = hyper_parameters.routing_softmax
        first = "interests" if over == "interests" else "history"
        last = "history" if over == "history" else "interests"
        self._couplings = [_COUPLINGS[first]] * (rounds - 1) + [_COUPLINGS[last]]
        self._from_history = hyper_parameters.routing_init == "history"
        self._first: Array = None
        """[1, K, L]: the first couplings of interests, if they are the same for every history."""
        if self._couplings[0] is _softmax_over_interests and not self._from_history:
            self._first = _softmax_over_interests(xp, self._routing_logits[None], None)

    def interest_vectors(self, behaviour: Array, seq_len: Array) -> Array:
        """Compute the interest vectors of a batch, [B, K, D] float32.

        Args:
            behaviour: [B, L, D] float32: the items of each history times `weights.bilinear`, then rows of zeros, so
                that a softmax over the interests needs no mask.
            seq_len: [B] int64: the number of items of each history.
        """
        xp = self._xp
        weight, recent = self._weights(behaviour, seq_len)
        capsule = squash(xp, weight @ behaviour)
        if recent is not None:
            capsule = capsule + recent @ behaviour
        if self._projection is not None:
            capsule = xp.maximum(capsule @ self._projection[:-1] + self._projection[-1], 0)
        return capsule

    def click_weights(self, behaviour: Array, seq_len: Array) -> Array:
        """How much each item of a history adds to each interest, [B, K, L] float32, 0 for padding.

        These are the factors of the items in the sum that the interest is, before a projection. The arguments are those
        of `interest_vectors`.
        """
        xp = self._xp
        weight, recent = self._weights(behaviour, seq_len)
        summed = weight @ behaviour
        square = (summed * summed).sum(axis=2, keepdims=True)
        found = weight * (xp.sqrt(square) / (1 + square))  # what `squash` multiplies the sum with
        valid = xp.arange(behaviour.shape[1]) < seq_len[:, None, None]
        return (found if recent is None else found + recent) * valid

    def _weights(self, behaviour: Array, seq_len: Array) -> tuple[Array, Array]:
        """The couplings of the last round, and the weights of the newest items: [B, K, L] each; None without these."""
        xp, length = self._xp, behaviour.shape[1]
        transposed = behaviour.transpose(0, 2, 1)
        if self._from_history:
            logits = far_apart(xp, behaviour, seq_len, len(self._routing_logits))  # [B, K, L]
        else:
            logits = self._routing_logits[None, :, :length]  # [1, K, L]
        weight = self._couplings[0](xp, logits, seq_len) if self._first is None else self._first[:, :, :length]
        for coupling in self._couplings[1:]:
            capsule = squash(xp, weight @ behaviour)  # [B, K, D]
            agreement = capsule @ transposed  # [B, K, L]
            if self._bounded:
                agreement = agreement / xp.maximum(xp.linalg.norm(agreement, axis=2, keepdims=True), 1)
            logits = logits + agreement
            weight = coupling(xp, logits, seq_len)
        if self._recency_logits is None:
            return weight, None
        age = xp.maximum(seq_len[:, None] - 1 - xp.arange(length), 0)  # [B, L], 0 is the newest
        own = self._focus * _log_softmax_over_interests(xp, logits)  # [B, K, L]
        return weight, _softmax_over_history(xp, self._recency_logits[age][:, None] + own, seq_len)


def far_apart(xp: Any, behaviour: Array, seq_len: Array, interests: int) -> Array:
    """Return routing logits that start at items of the history: the newest, then each time the least similar one.

    This is farthest-first traversal (Gonzalez 1985). If a history has fewer topics than interests, some interests start
    equal and stay equal. Items that differ only by rounding count as equal, so that every library starts at the same
    items.

    Args:
        xp: the library of the arrays.
        behaviour, seq_len: as in `Routing.interest_vectors`.
        interests: K, the number of interests.

    Returns:
        [B, K, L]: `SHARPNESS` times the cosine of every item with the item at which the interest starts.
    """
    unit = behaviour / xp.maximum(xp.sqrt((behaviour * behaviour).sum(axis=2, keepdims=True)), xp.float32(SHORTEST))
    missing = xp.arange(behaviour.shape[1]) >= seq_len[:, None]  # [B, L]
    user, seed = xp.arange(len(behaviour)), xp.maximum(seq_len - 1, 0)
    logits = xp.empty((len(behaviour), interests, behaviour.shape[1]), xp.float32)
    nearest: Array = None
    for interest in range(interests):
        near = (unit @ unit[user, seed][:, :, None])[:, :, 0]  # [B, L]
        logits[:, interest] = near * xp.float32(SHARPNESS)
        nearest = near if nearest is None else xp.maximum(nearest, near)
        far = xp.where(nearest > SAME, xp.float32(1), nearest)
        seed = xp.where(missing, xp.float32(2), far).argmin(axis=1)
    return logits


def squash(xp: Any, capsule: Array) -> Array:
    """Shrink vectors to a length below 1 and keep their direction (arXiv 1904.08030, equation 4).

    The formula |s|^2 / (1 + |s|^2) * s / |s| is computed as s * |s| / (1 + |s|^2), which needs no guard against zero.
    """
    square = (capsule[..., None, :] @ capsule[..., None])[..., 0]  # one product, faster than einsum on CPU and GPU
    return capsule * (xp.sqrt(square) / (1 + square))


def _softmax_over_interests(xp: Any, logits: Array, seq_len: Array) -> Array:
    weight = xp.exp(logits - logits.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return weight


def _log_softmax_over_interests(xp: Any, logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))


def _softmax_over_history(xp: Any, logits: Array, seq_len: Array) -> Array:
    valid = xp.arange(logits.shape[2]) < seq_len[:, None, None]
    logits = xp.where(valid, logits, xp.float32(-1e30))
    weight = xp.exp(logits - logits.max(axis=2, keepdims=True)) * valid
    weight /= xp.maximum(weight.sum(axis=2, keepdims=True), 1e-30)
    return weight


_Coupling = Callable[[Any, Array, Array], Array]
_COUPLINGS: dict[str, _Coupling] = {"interests": _softmax_over_interests, "history": _softmax_over_history}
