"""The vectors of items: the embedding of the id, plus pooled embeddings of the item's features if there are any.

Serving and index do not see these parts. `ItemTable.dense` gives one vector for each item, and an artifact holds these
vectors.
"""

from typing import TYPE_CHECKING

import numpy as np

from mind.artifact import Float32
from mind.paddle_runtime import paddle

if TYPE_CHECKING:
    from mind.data.features import ItemFeatures  # reads files, as serving never does

RANDOM_SHARE = 0.3
"""The share of the random start that is kept, so that items which begin alike can still become different."""


class ItemTable(paddle.nn.Layer):  # type: ignore[misc]
    """The sum of an item's parts: its id's embedding and, for each feature, the mean of its values' embeddings.

    This is the embedding and pooling layer of arXiv 1904.08030 (section 4.1), which averages the parts. On MovieLens
    the sum was about one point better. An item that was never trained has no id part, and an item without a value has
    no part for the feature, so features alone can make a vector.
    """

    def __init__(self, items: int, dim: int, features: "ItemFeatures | None", id_dropout: float) -> None:
        """Make a table with new weights.

        Args:
            items: N. The table gets N + 1 rows; row 0 is padding and zero.
            dim: D, the length of a vector.
            features: the features of the N items; None uses only the id.
            id_dropout: in training, the probability that an item with features gets no embedding of its id in a batch,
                so that features learn to work alone (Volkovs et al., "DropoutNet", NIPS 2017).
        """
        super().__init__()
        start = paddle.nn.initializer.Normal(std=dim**-0.5)
        self.embedding = paddle.nn.Embedding(items + 1, dim, padding_idx=0, sparse=True, weight_attr=start)
        self.id_dropout = id_dropout
        self.names = [column.name for column in features.columns] if features else []
        if features:
            self.register_buffer("has_id", paddle.to_tensor(features.trained.astype(np.float32)))
            self.values = paddle.nn.LayerList()
            for column in features.columns:
                self.register_buffer(f"value_{column.name}", paddle.to_tensor(column.value_index))
                self.values.append(
                    paddle.nn.Embedding(len(column.values) + 1, dim, padding_idx=0, sparse=True, weight_attr=start)
                )

    def forward(self, item_index: paddle.Tensor) -> paddle.Tensor:
        """Return the vectors of rows.

        Args:
            item_index: [...] int64 rows; 0 is padding.

        Returns:
            [..., D] float32, zero for padding.
        """
        if not self.names:
            return self.embedding(item_index)
        rows, place = paddle.unique(item_index.flatten(), return_inverse=True)  # many items of a batch repeat
        parts, described = [], paddle.zeros([rows.shape[0], 1])
        for name, embedding in zip(self.names, self.values, strict=True):
            value = getattr(self, f"value_{name}")[rows]  # [R, V]
            known = (value > 0).astype("float32").sum(axis=1, keepdim=True)
            parts.append(embedding(value.astype("int64")).sum(axis=1) / known.clip(min=1))
            described = paddle.maximum(described, (known > 0).astype("float32"))
        has_id = self.has_id[rows].unsqueeze(1)  # [R, 1]
        if self.training and self.id_dropout:
            has_id = has_id * (1 - (paddle.rand(has_id.shape) < self.id_dropout).astype("float32") * described)
        pooled = sum(parts, self.embedding(rows) * has_id)
        return pooled[place].reshape([*item_index.shape, -1])

    def begin_near(self, vectors: Float32) -> None:
        """Start the embeddings of the ids at [N + 1, D] float32 vectors, keeping a part of the random start."""
        start = self.embedding.weight.numpy()  # a copy that is changed in place, because it may have gigabytes
        start *= np.float32(RANDOM_SHARE)
        start += vectors
        self.embedding.weight.set_value(start)

    def begin_at(self, vectors: Float32) -> None:
        """Start the embeddings of the ids at [N + 1, D] float32 vectors. Rows that are zero keep their random start."""
        start = self.embedding.weight.numpy()
        given = vectors.any(axis=1)
        start[given] = vectors[given]
        self.embedding.weight.set_value(start)

    def dense(self, batch_size: int = 100_000) -> Float32:
        """Compute the vector of every item as the network uses it outside of training: [N + 1, D] float32."""
        if not self.names:
            return np.array(self.embedding.weight.numpy())
        training = self.training
        self.eval()
        rows = paddle.arange(self.embedding.weight.shape[0])
        with paddle.no_grad():
            table = np.concatenate(
                [self(part).numpy() for part in paddle.split(rows, _sections(len(rows), batch_size))]
            )
        if training:
            self.train()
        return table


def _sections(rows: int, size: int) -> list[int]:
    return [size] * (rows // size) + [rows % size] * (rows % size > 0)
