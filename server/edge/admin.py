"""The service `recall.v1.AdminService`.

It exists only if there are admin tokens, and the door checks every call for one.
"""

import logging
from typing import Any

import grpc

from mind.milvus.collection import is_item_collection
from protos.recall.v1 import admin_pb2, admin_pb2_grpc
from server.channels import Channels
from server.errors import InvalidRequestError, RefusedError
from server.ports import ItemStore

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """The methods for operators, which drop a collection or reload the release."""

    def __init__(self, channels: Channels, store: ItemStore) -> None:
        self._channels = channels
        self._store = store

    async def DropItems(self, request: admin_pb2.DropItemsRequest, context: Context) -> admin_pb2.DropItemsResponse:  # noqa: N802
        """Drop a collection. One that is the release of any channel is dropped only if `allow_live` is set."""
        name = request.collection
        if not is_item_collection(name):
            raise InvalidRequestError("collection", f"{name!r} is no item collection's name", "UNKNOWN_COLLECTION")
        serving = {release.collection for release in self._channels.served}
        if not request.allow_live and (name in serving or await self._store.aliases(name)):
            raise RefusedError(f"collection {name} is released or being served; set allow_live to drop it all the same")
        fingerprint = await self._store.fingerprint(name)  # because counting needs the collection in memory
        count = fingerprint.count if fingerprint else 0
        await self._store.drop(name)
        logger.warning("dropped collection %s with %d items", name, count)
        return admin_pb2.DropItemsResponse(collection=name, dropped_count=count)

    async def Reload(self, request: admin_pb2.ReloadRequest, context: Context) -> admin_pb2.ReloadResponse:  # noqa: N802
        """Read the alias now, and switch to the release that it names."""
        releases = self._channels.of(request.channel)
        before, release = await releases.check(insist=True)
        return admin_pb2.ReloadResponse(
            model_version=release.model_version,
            collection=release.collection,
            previous_model_version=before.model_version if before else "",
            previous_collection=before.collection if before else "",
            channel=releases.channel,
        )
