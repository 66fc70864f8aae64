"""Large requests are decoded in parts, and nobody can tell."""

import numpy as np
import pytest

from protos.recall.v1 import recall_pb2
from server.edge import wire
from server.errors import InvalidRequestError

RECALL = recall_pb2.DESCRIPTOR.services_by_name["RecallService"].methods_by_name["Recall"]


def sent(users: int, ids: int) -> bytes:
    rng = np.random.default_rng(users)
    histories = rng.integers(-(2**63), 2**63, (users, ids))
    request = recall_pb2.RecallRequest(top_k=7, filter="price < 5", exclude_history=True)
    request.users.extend(
        recall_pb2.User(hist_item=one, user_id=f"user {number}") for number, one in enumerate(histories)
    )
    return request.SerializeToString()


@pytest.mark.parametrize(("users", "ids"), [(1, 3), (256, 100), (7, 9_000), (1, 100_000)])
def test_a_message_is_its_parts_merged(users: int, ids: int) -> None:
    request = sent(users, ids)
    assert (len(request) > wire.LARGE) == (ids > 3)
    again = recall_pb2.RecallRequest(top_k=9).SerializeToString()  # the last value counts, as in any message
    decoded = wire.decoder(RECALL, max_users=256)(request + again)
    assert decoded == recall_pb2.RecallRequest.FromString(request + again)
    assert (len(decoded.users), decoded.top_k, decoded.filter) == (users, 9, "price < 5")


@pytest.mark.parametrize("kept", [-1, -300, 70_000])
def test_a_large_message_that_is_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"bytes that are no recall\.v1\.RecallRequest"):
        wire.decoder(RECALL, max_users=256)(sent(256, 100)[:kept])


def test_more_users_than_the_limit_are_not_decoded() -> None:
    with pytest.raises(InvalidRequestError, match="has more than 8 users, the limit is 8"):
        wire.decoder(RECALL, max_users=8)(sent(8 + wire.OTHER_FIELDS, 100))


def test_a_large_request_may_have_as_many_names_and_items_as_its_limits_allow() -> None:
    asked = recall_pb2.RecallRequest.FromString(sent(256, 100))
    asked.return_attributes.extend(f"attribute {place}" for place in range(64))
    asked.at_most.extend(recall_pb2.AtMost(attribute=f"attribute {place}", count=1) for place in range(64))
    assert wire.decoder(RECALL, max_users=256)(asked.SerializeToString()) == asked
    feedback = recall_pb2.LogFeedbackRequest(kind="click", item_keys=[f"{place:0100d}" for place in range(1_000)])
    method = recall_pb2.DESCRIPTOR.services_by_name["RecallService"].methods_by_name["LogFeedback"]
    assert wire.decoder(method, max_users=256)(feedback.SerializeToString()) == feedback
