"""MIND as PaddleRec trains it, written anew from its code's structure: the baseline of `tests.bench.training_speed`.

Source: https://github.com/PaddlePaddle/PaddleRec, `net.py`, `mind_reader.py`, `dygraph_model.py` and `config.yaml` of
`models/recall/mind/`, and the loop of `tools/trainer.py`. Kept, because it is what a step costs:

- a dense `nn.Embedding`, so the gradient is as large as the item table, and dense Adam, which updates every row;
- the history tiled once for each interest before routing, whose coupling sums to 1 over the history and in the last
  round over the interests; a linear layer and ReLU after the capsules (`tiled=False` broadcasts instead, as another
  version of `net.py` does);
- 1,280 negatives, drawn without replacement from a log-uniform distribution by `paddle.multinomial` over all items;
- a reader that draws users and makes one example at a time in Python, batched by `paddle.io.DataLoader`.

Changed: the reader seeds its random numbers once instead of at every pass, which gave every epoch the same examples,
and has no end; probabilities are computed with NumPy instead of a loop over items, before anything is timed.
Shapes: B users, L history items, K interests, D dimensions, S negatives, N items with padding as item 0.
"""

import random
from collections.abc import Iterator

import numpy as np

from mind.paddle_runtime import paddle
from mind.sequences import Int64, Sequences

functional = paddle.nn.functional

NEGATIVES = 1280
LEARNING_RATE = 0.005
MIN_HISTORY = 4
"""Clicks before a target."""
MASKED = -(2.0**32) + 1


class PaddleRecMIND(paddle.nn.Layer):
    """The network; called, it gives the training loss."""

    def __init__(
        self,
        items: int,
        dim: int = 64,
        interests: int = 4,
        maxlen: int = 20,
        *,
        iterations: int = 3,
        power: float = 1.0,
        negatives: int = NEGATIVES,
        tiled: bool = True,
    ) -> None:
        """Make a network with fresh weights.

        Args:
            items: N, padding counted.
            dim: D, of items and interests.
            interests: K.
            maxlen: L.
            iterations: rounds of routing.
            power: of the label-aware attention.
            negatives: S.
            tiled: copy the history once for each interest, or broadcast it.
        """
        super().__init__()
        self.interests, self.maxlen, self.dim = interests, maxlen, dim
        self.iterations, self.power, self.negatives, self.tiled = iterations, power, negatives, tiled
        start = paddle.nn.initializer.XavierUniform(fan_in=items, fan_out=dim)
        self.embedding = paddle.nn.Embedding(items, dim, padding_idx=0, weight_attr=paddle.ParamAttr(initializer=start))
        fixed = paddle.ParamAttr(trainable=False)
        self.bias = self.create_parameter([items], attr=fixed, is_bias=True)
        normal = paddle.nn.initializer.Normal()
        self.routing_logits = self.create_parameter([1, interests, maxlen], attr=fixed, default_initializer=normal)
        self.bilinear = self.create_parameter([dim, dim], default_initializer=normal)
        self.projection = paddle.nn.Linear(dim, dim)
        probability = log_uniform(items)
        self.probability = paddle.to_tensor(probability.astype(np.float32))
        with np.errstate(divide="ignore"):  # padding is never drawn
            log_expected = np.log(-np.expm1(-2 * negatives * np.log1p(probability)))
        self.log_expected = paddle.to_tensor(log_expected.astype(np.float32))

    def capsules(self, hist_index: paddle.Tensor, seq_len: paddle.Tensor) -> paddle.Tensor:
        """Routing: [B, K, D] of hist_index [B, L], 0-padded on the right, and seq_len [B, 1], both int64."""
        behaviour = paddle.matmul(self.embedding(hist_index), self.bilinear)  # [B, L, D]
        lengths = paddle.tile(seq_len, [1, self.interests]).unsqueeze(-1)
        mask = paddle.arange(self.maxlen).unsqueeze(0).unsqueeze(0) < lengths  # [B, K, L]
        masked = paddle.full(mask.shape, MASKED)
        behaviour = self._of_every_interest(behaviour)  # [B, K, L, D]
        fixed = paddle.assign(behaviour)
        fixed.stop_gradient = True
        logits = paddle.tile(self.routing_logits, [hist_index.shape[0], 1, 1])
        for _ in range(self.iterations - 1):
            coupling = functional.softmax(paddle.where(mask, logits, masked), axis=2)
            capsule = squash(paddle.matmul(coupling.unsqueeze(2), fixed))  # [B, K, 1, D]
            agreement = paddle.matmul(fixed, paddle.transpose(capsule, [0, 1, 3, 2]))  # [B, K, L, 1]
            logits = logits + agreement.reshape([-1, self.interests, self.maxlen])
        coupling = functional.softmax(paddle.where(mask, logits, masked), axis=1)
        capsule = squash(paddle.matmul(coupling.unsqueeze(2), behaviour))
        return capsule.reshape([-1, self.interests, self.dim])

    def _of_every_interest(self, behaviour: paddle.Tensor) -> paddle.Tensor:
        if not self.tiled:
            return behaviour.unsqueeze(1)
        tiled = paddle.tile(behaviour, [1, 1, self.interests])
        return tiled.reshape([-1, self.maxlen, self.interests, self.dim]).transpose([0, 2, 1, 3])

    def attend(self, interests: paddle.Tensor, target: paddle.Tensor) -> paddle.Tensor:
        """Label-aware attention: [B, D] of interests [B, K, D] and target embeddings [B, D]."""
        score = paddle.matmul(interests, target.unsqueeze(2)).squeeze(2)
        weight = functional.softmax(paddle.pow(score, self.power), axis=1)
        return paddle.matmul(weight.unsqueeze(1), interests).squeeze(1)

    def draw(self) -> paddle.Tensor:
        """Negatives for one batch, [S] int64, all different."""
        return paddle.multinomial(self.probability, num_samples=self.negatives, replacement=False)

    def sampled_softmax(self, user: paddle.Tensor, target: paddle.Tensor, negatives: paddle.Tensor) -> paddle.Tensor:
        """Mean cross entropy of each target against the negatives, corrected by log of how often each is expected.

        Args:
            user: [B, D].
            target: [B, 1] int64.
            negatives: [S] int64; where one is the row's target it is left out.
        """
        drawn = paddle.concat([target.reshape([-1]), negatives])
        embedding, bias = paddle.gather(self.embedding.weight, drawn), paddle.gather(self.bias, drawn)
        batch = target.shape[0]
        own = paddle.sum(embedding[:batch] * user, axis=1) + bias[:batch]
        own = own - paddle.gather(self.log_expected, target.reshape([-1]))
        others = paddle.matmul(user, embedding[batch:], transpose_y=True) + bias[batch:]
        others = others - paddle.gather(self.log_expected, negatives)
        others = paddle.where(paddle.equal(target, negatives), paddle.full_like(others, -1e30), others)
        logits = paddle.concat([own.unsqueeze(1), others], axis=1)  # [B, 1 + S]
        labels = paddle.concat([paddle.ones([batch, 1]), paddle.zeros_like(others)], axis=1)
        return functional.cross_entropy(logits, labels, soft_label=True)

    def forward(self, hist_index: paddle.Tensor, target: paddle.Tensor, seq_len: paddle.Tensor) -> paddle.Tensor:
        """Loss of hist_index [B, L], target [B, 1] and seq_len [B, 1], all int64."""
        interests = functional.relu(self.projection(self.capsules(hist_index, seq_len)))
        user = self.attend(interests, self.embedding(target).squeeze(1))
        return self.sampled_softmax(user, target, self.draw())


class RowReader(paddle.io.IterableDataset):
    """Training examples without end, one at a time: a random click of a random user, and what came before it."""

    def __init__(self, sequences: Sequences, batch_size: int, maxlen: int = 20, seed: int = 12345) -> None:
        """Keep every user's items in a list, in a dictionary."""
        super().__init__()
        item_id, offsets = sequences.item_id.tolist(), sequences.offsets.tolist()
        self._items = {
            user: item_id[offsets[row] : offsets[row + 1]] for row, user in enumerate(sequences.user_id.tolist())
        }
        self._users = list(self._items)
        self._batch_size, self._maxlen = batch_size, maxlen
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[list[Int64]]:
        """History [L], target [1] and history length [1], all int64."""
        while True:
            for user in self._random.sample(self._users, self._batch_size):
                items = self._items[user]
                if len(items) <= MIN_HISTORY:
                    continue
                k = self._random.choice(range(MIN_HISTORY, len(items)))
                if k >= self._maxlen:
                    history, length = items[k - self._maxlen : k], self._maxlen
                else:
                    history, length = items[:k] + [0] * (self._maxlen - k), k
                yield [
                    np.array(history).astype("int64"),
                    np.array([items[k]]).astype("int64"),
                    np.array([length]).astype("int64"),
                ]


class PaddleRecTraining:
    """The loop around network and reader."""

    def __init__(self, sequences: Sequences, items: int, batch_size: int, *, tiled: bool = True) -> None:
        """Train on sequences whose item ids are 1 to `items`."""
        self.network = PaddleRecMIND(items + 1, negatives=min(NEGATIVES, items), tiled=tiled)
        self.network.train()
        self.optimizer = paddle.optimizer.Adam(LEARNING_RATE, parameters=self.network.parameters())
        reader = RowReader(sequences, batch_size)
        self._batches = iter(paddle.io.DataLoader(reader, batch_size=batch_size, drop_last=True))

    def step(self) -> int:
        """Read a batch and learn from it; gives the number of examples."""
        hist_index, target, seq_len = next(self._batches)
        self.optimizer.clear_grad()
        loss = self.network(hist_index, target, seq_len)
        loss.backward()
        self.optimizer.step()
        return len(target)


def squash(capsule: paddle.Tensor) -> paddle.Tensor:
    """Shrink vectors to a length below 1."""
    square = paddle.sum(paddle.square(capsule), axis=-1, keepdim=True)
    return square / (1 + square) / paddle.sqrt(square + 1e-8) * capsule


def log_uniform(items: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How likely each item is to be drawn: [N] float64, falling with the id, 0 for padding."""
    item = np.arange(items)
    probability = (np.log(item + 2) - np.log(item + 1)) / np.log(items + 1)
    probability[0] = 0
    return probability
