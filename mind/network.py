"""The MIND network in PaddlePaddle (Li et al., "Multi-Interest Network with Dynamic Routing", arXiv 1904.08030).

This module knows rows of the item table and no external ids, and nothing of files, training loops or serving.
Shapes: B users, L history items, K interests, D dimensions, C candidates of the softmax.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

from mind.artifact import Float32
from mind.config import HyperParameters
from mind.item_table import ItemTable
from mind.paddle_runtime import paddle
from mind.routing import SAME, SHARPNESS, SHORTEST
from mind.weights import Weights

if TYPE_CHECKING:
    from mind.data.features import ItemFeatures  # reads files, as serving never does

functional = paddle.nn.functional

RECENCY_SLOPE = 0.2
"""Start value of the recency logits: each step into the past weighs exp(-0.2) = 0.82 of the next newer one."""
HISTORY_LENGTHS = 0.2
"""Weight of an item of a history in the lengths that the loss counts; a candidate weighs 1."""
FOCUS = 0.5
"""Start value of the focus, between one residual for all interests (0) and a separate one for each interest (1)."""


class MIND(paddle.nn.Layer):  # type: ignore[misc]
    """The MIND network: item table, bilinear map, routing, and optional parts. A call returns the training loss."""

    def __init__(
        self,
        items: int,
        hyper_parameters: HyperParameters,
        routing_logits: Float32,
        features: "ItemFeatures | None" = None,
    ) -> None:
        """Make a network with new weights.

        Args:
            items: N. The table gets N + 1 rows; row 0 is padding and zero.
            hyper_parameters: the sizes, the number of routing iterations, the attention power, and the options.
            routing_logits: [K, maxlen] float32, the start of routing with `routing_init: random`. They are drawn once
                from N(0, 1) and then fixed (section 4.2.2 of the paper), because equal logits would make all interests
                the same.
            features: the features of the items, pooled into their vectors; None without features.
        """
        super().__init__()
        dim = hyper_parameters.embedding_dim
        self.hyper_parameters = hyper_parameters
        self.items = ItemTable(items, dim, features, hyper_parameters.id_dropout)
        identity = paddle.nn.initializer.Assign(np.eye(dim, dtype=np.float32))
        start = identity if hyper_parameters.bilinear_init == "identity" else paddle.nn.initializer.Normal()
        self.bilinear = self.create_parameter([dim, dim], default_initializer=start)
        fading = paddle.nn.initializer.Assign(-RECENCY_SLOPE * np.arange(routing_logits.shape[1], dtype=np.float32))
        self.recency_logits = self.create_parameter([routing_logits.shape[1]], default_initializer=fading)
        focus = paddle.nn.initializer.Constant(FOCUS if hyper_parameters.focus else 0.0)
        self.focus = self.create_parameter([1], default_initializer=focus)
        self.focus.stop_gradient = not hyper_parameters.focus
        self.dropout = paddle.nn.Dropout(hyper_parameters.dropout)
        self.projection = paddle.nn.Linear(dim, dim) if hyper_parameters.projection == "relu" else None
        self.register_buffer("routing_logits", paddle.to_tensor(routing_logits))

    def begin_as(self, weights: Weights, item_embedding: Float32) -> None:
        """Start with the weights of a model with the same hyper-parameters.

        Args:
            weights: the weights of that model. Its routing logits are used too, because the other weights were learnt
                with them.
            item_embedding: [N + 1, D] float32, for the items of this network. Rows that are zero keep their random
                start.
        """
        self.items.begin_at(item_embedding)
        for own, learnt in (
            (self.bilinear, weights.bilinear),
            (self.recency_logits, weights.recency_logits),
            (self.focus, weights.focus),
            (self.routing_logits, weights.routing_logits),
        ):
            own.set_value(np.ascontiguousarray(learnt))
        if self.projection is not None and weights.projection is not None:
            self.projection.weight.set_value(np.ascontiguousarray(weights.projection[:-1]))
            self.projection.bias.set_value(np.ascontiguousarray(weights.projection[-1]))

    def interest_vectors(self, hist_index: paddle.Tensor, seq_len: paddle.Tensor) -> paddle.Tensor:
        """Compute interest vectors by behaviour-to-interest dynamic routing (algorithm 1).

        The coupling of behaviour and interest is found without gradients, and only the last round has gradients, as in
        the original capsule network (Sabour et al., arXiv 1710.09829). Routing sees whole items, without dropout, as in
        serving. With `residual`, a mean of the behaviours is added to every interest, weighted by recency and by the
        interest's own coupling to the power `focus`.

        Args:
            hist_index: [B, L] int64 rows, oldest first, 0-padded on the right; L <= maxlen.
            seq_len: [B] int64.

        Returns:
            [B, K, D] float32.
        """
        return self._interests(self.items(hist_index), seq_len)

    def _interests(self, whole: paddle.Tensor, seq_len: paddle.Tensor) -> paddle.Tensor:
        """Return the interest vectors [B, K, D] of histories of item vectors, [B, L, D]."""
        position, end = paddle.arange(whole.shape[1]).unsqueeze(0), seq_len.unsqueeze(1)
        valid = (position < end).astype("float32").unsqueeze(1)  # [B, 1, L]
        item = self.dropout(whole)
        logits = self._route(whole.detach(), valid)
        last = _coupling(logits, valid, self.hyper_parameters.routing_softmax != "history")
        interests = squash(last @ item @ self.bilinear)  # linear, so K rows are multiplied instead of L
        if self.hyper_parameters.residual:
            age = (end - 1 - position).clip(min=0)  # 0 is the newest
            own = self.focus * functional.log_softmax(logits, axis=1)  # [B, K, L]
            weight = _masked_softmax(self.recency_logits[age].unsqueeze(1) + own, valid)
            interests = interests + weight @ item @ self.bilinear
        return interests if self.projection is None else functional.relu(self.projection(interests))

    def _route(self, item: paddle.Tensor, valid: paddle.Tensor) -> paddle.Tensor:
        """Compute the routing logits [B, K, L] of items [B, L, D].

        `valid`: [B, 1, L], 1 for an item and 0 for padding.
        """
        hyper = self.hyper_parameters
        behaviour = item @ self.bilinear.detach()  # [B, L, D]
        if hyper.routing_init == "history":
            logits = _far_apart(behaviour, valid, hyper.num_interests)
        else:
            logits = self.routing_logits[:, : item.shape[1]].unsqueeze(0).expand([item.shape[0], -1, -1])
        for _ in range(hyper.routing_iterations - 1):
            coupling = _coupling(logits, valid, hyper.routing_softmax == "interests")
            capsule = squash(coupling @ behaviour)  # [B, K, D]
            agreement = paddle.matmul(capsule, behaviour, transpose_y=True)
            if hyper.bounded_update:
                agreement = agreement / agreement.norm(axis=2, keepdim=True).clip(min=1)
            logits = logits + agreement
        return logits

    def scores(self, interest_vectors: paddle.Tensor, embedding: paddle.Tensor) -> paddle.Tensor:
        """Return the scores of candidates for users, in training.

        The readout `logsumexp` is log sum_k exp(v_k . e), a soft maximum over the interests, because serving uses the
        best interest. Its gradient weighs the interests of every candidate by softmax(v . e), which is the label-aware
        attention of equation 5 with p = 1. With `label_aware`, only the target is the label, as in the paper.

        Args:
            interest_vectors: [B, K, D].
            embedding: [C, D], the vectors of the candidates, C >= B. The first B are the targets of the B users.

        Returns:
            [B, C], the score of each candidate for each user.
        """
        items = embedding.t()
        if self.hyper_parameters.readout == "label_aware":
            return self.label_aware_attention(interest_vectors, embedding[: interest_vectors.shape[0]]) @ items
        scores = [interest_vectors[:, k] @ items for k in range(interest_vectors.shape[1])]
        if len(scores) == 1:
            return scores[0]
        best = functools.reduce(paddle.maximum, scores).detach()
        return best + sum((score - best).exp() for score in scores).log()

    def label_aware_attention(self, interest_vectors: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """Return the interests as one vector, each weighted by softmax((v . e) ^ p), equation 5.

        The power keeps the sign.

        Args:
            interest_vectors: [B, K, D].
            target: [B, D], the vectors of the target items.

        Returns:
            [B, D], the weighted sum of the interests.
        """
        score = (interest_vectors @ target.unsqueeze(2)).squeeze(2)  # [B, K]
        power = self.hyper_parameters.pow_p
        if power != 1.0:
            score = score.sign() * score.abs().pow(power)
        return (functional.softmax(score, axis=1).unsqueeze(1) @ interest_vectors).squeeze(1)

    def forward(
        self,
        hist_index: paddle.Tensor,
        seq_len: paddle.Tensor,
        candidates: paddle.Tensor,
        log_frequency: paddle.Tensor,
        weight: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Return the loss of the sampled softmax: each row's target against all candidates of the batch.

        Candidates are drawn in proportion to item frequency. Subtracting the log frequency makes the sampled softmax an
        estimate of the full one (Bengio and Senecal 2008; Yi et al., RecSys 2019). A candidate that equals the row's
        own target is masked.

        Args:
            hist_index, seq_len: as in `interest_vectors`.
            candidates: [C] int64 rows, C >= B. The first B are the targets of the B rows.
            log_frequency: [C] float32, the log of each candidate's share of all drawn candidates.
            weight: [B] float32, the weight of each row; None gives all rows the weight 1.

        Returns:
            A scalar, the mean cross entropy in nats.
        """
        batch = hist_index.shape[0]
        target = candidates[:batch]
        history, items = self.items(hist_index), self.items(candidates)
        logits = self.scores(self._interests(history, seq_len), items) - log_frequency
        same = (target.unsqueeze(1) == candidates.unsqueeze(0)).astype("float32")
        own = paddle.eye(batch, candidates.shape[0])
        logits, label = logits - 1e9 * (same - own), paddle.arange(batch)
        if weight is None:
            loss = functional.cross_entropy(logits, label)
        else:
            loss = (functional.cross_entropy(logits, label, reduction="none").flatten() * weight).mean()
        if not self.hyper_parameters.length_weight:
            return loss
        lengths = items.square().sum(axis=1).mean() + HISTORY_LENGTHS * history.square().sum(axis=[1, 2]).mean()
        return loss + self.hyper_parameters.length_weight * lengths


def squash(capsule: paddle.Tensor) -> paddle.Tensor:
    """Shrink vectors to a length below 1 and keep their direction (equation 4). `routing.squash` has the same form.

    A small constant keeps the gradient of the square root finite at zero.
    """
    square = capsule.square().sum(axis=-1, keepdim=True)
    return capsule * ((square + 1e-18).sqrt() / (1 + square))


def _far_apart(behaviour: paddle.Tensor, valid: paddle.Tensor, interests: int) -> paddle.Tensor:
    """Return routing logits [B, K, L] that start at items of the history. `routing.far_apart` has the same form."""
    unit = behaviour / behaviour.norm(axis=2, keepdim=True).clip(min=SHORTEST)
    valid = valid.squeeze(1)  # [B, L]
    seed = (valid.sum(axis=1).astype("int64") - 1).clip(min=0)  # [B], the newest
    near: list[paddle.Tensor] = []
    for _ in range(interests):
        vector = paddle.take_along_axis(unit, seed.reshape([-1, 1, 1]).expand([-1, 1, unit.shape[2]]), axis=1)
        near.append((unit @ vector.transpose([0, 2, 1])).squeeze(2))
        nearest = functools.reduce(paddle.maximum, near)
        taken = (nearest > SAME).astype("float32")
        seed = (nearest * (1 - taken) + taken + 2 * (1 - valid)).argmin(axis=1)
    return SHARPNESS * paddle.stack(near, axis=1)


def _coupling(logits: paddle.Tensor, valid: paddle.Tensor, over_interests: bool) -> paddle.Tensor:
    """Return the share of each history item in each interest: [B, K, L] from logits [B or 1, K, L], zero at padding."""
    return functional.softmax(logits, axis=1) * valid if over_interests else _masked_softmax(logits, valid)


def _masked_softmax(logits: paddle.Tensor, valid: paddle.Tensor) -> paddle.Tensor:
    return functional.softmax(logits - 1e9 * (1 - valid)) * valid
