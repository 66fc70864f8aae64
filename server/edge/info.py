"""Writes the answer of GetServerInfo: what is being served in each channel, and the limits."""

import secrets
from importlib.metadata import version

from mind.milvus.rules import NO_RULES
from protos.recall.v1 import recall_pb2
from server.channels import Channels
from server.edge.limits import most_candidates
from server.edge.split import Split
from server.release import Release
from server.releases import Releases
from server.settings import Settings

_VERSION = version("mind-recall")  # reads a file: too slow for every call
_INSTANCE = secrets.token_hex(8)


def server_info(
    settings: Settings, channels: Channels, releases: Releases, split: Split
) -> recall_pb2.GetServerInfoResponse:
    """The answer about all channels, and about the release of one of them, which is loaded."""
    release = releases.current
    attributes = [recall_pb2.Attribute(name=name, type=kind) for name, kind in release.attributes.items()]
    return recall_pb2.GetServerInfoResponse(
        server_version=_VERSION,
        model_version=release.model_version,
        collection=release.collection,
        item_count=release.fingerprint.count,
        embedding_dim=release.fingerprint.dim,
        num_interests=release.hyper_parameters.num_interests,
        maxlen=release.hyper_parameters.maxlen,
        metric=release.fingerprint.metric,
        encoder=release.encoder.name,
        attributes=attributes,
        limits=_limits(settings, release),
        admin_enabled=settings.admin_token_file is not None,
        refused_release=releases.refused,
        refused_collection=releases.refused_collection,
        instance=_INSTANCE,
        processes=settings.processes,
        previous_collection=releases.previous.collection if releases.previous else "",
        users_enabled=settings.users,
        id_type=_id_type(release),
        search=settings.search,
        neighbours=_default(release),
        feedback_enabled=bool(settings.feedback_log),
        channels=[_channel(each, split.share_of(each.channel, channels.default.channel)) for each in channels],
        channel=releases.channel,
        release_rules="" if release.rules == NO_RULES else release.rules.to_json(),
    )


def _limits(settings: Settings, release: Release) -> recall_pb2.Limits:
    names = [field.name for field in recall_pb2.Limits.DESCRIPTOR.fields]
    limits = recall_pb2.Limits(**{name: getattr(settings, name) for name in names})
    limits.max_candidates = most_candidates(settings, release)
    limits.max_top_k = min(settings.max_top_k, limits.max_candidates)
    return limits


def _channel(releases: Releases, share: float) -> recall_pb2.ChannelInfo:
    """What is told of a channel, whether it has a release or not."""
    told = recall_pb2.ChannelInfo(
        name=releases.channel,
        refused_release=releases.refused,
        refused_collection=releases.refused_collection,
        split=share,
    )
    if releases.loaded:
        release = releases.current
        told.model_version, told.collection = release.model_version, release.collection
        told.previous_collection = releases.previous.collection if releases.previous else ""
        told.item_count, told.id_type = release.fingerprint.count, _id_type(release)
    return told


def _id_type(release: Release) -> recall_pb2.IdType:
    return recall_pb2.ID_TYPE_TEXT if release.has_text_ids else recall_pb2.ID_TYPE_INTEGER


def _default(release: Release) -> recall_pb2.Neighbours:
    """What a request gets that says nothing of neighbours."""
    if release.neighbours is None:
        return recall_pb2.NEIGHBOURS_UNSPECIFIED
    return recall_pb2.NEIGHBOURS_ON if release.adds_neighbours else recall_pb2.NEIGHBOURS_OFF
