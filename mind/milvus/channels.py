"""The names of channels. A channel is a pointer to a released collection; the default one is `live`.

Each channel is an alias in Milvus. `live` is the alias of that name, as in versions without channels.
"""

import re

from mind.milvus.collection import ALIAS

LIVE = ALIAS
"""The channel of a request, a publish or a server that names none."""
MAX_CHANNELS = 16
"""Maximum number of channels at a time, `live` included."""
MAX_NAME = 32
"""Maximum length of the name of a channel, in characters."""

_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_NAME - 1}}}")


def is_channel(name: str) -> bool:
    """Return whether a text is the name of a channel: 1 to 32 of a-z, 0-9 and `-`, from a letter on."""
    return _NAME.fullmatch(name) is not None


def alias_of(channel: str) -> str:
    """Return the alias of a channel. Aliases of Milvus may not contain `-`, and channels contain no `_`.

    Raises:
        ValueError: the text is not the name of a channel.
    """
    if not is_channel(channel):
        raise ValueError(f"channel {channel!r}: 1 to {MAX_NAME} of a-z, 0-9 and -, from a letter on")
    return LIVE if channel == LIVE else "channel_" + channel.replace("-", "_")
