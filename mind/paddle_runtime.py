"""Imports Paddle without its warnings and without its changes to logging and signals: `import paddle` from here."""

import logging
import os
import warnings

os.environ.setdefault("GLOG_minloglevel", "2")
_handlers, _level = logging.root.handlers[:], logging.root.level

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Paddle asks for ccache, which only its C++ extension builder needs
    import paddle

logging.root.handlers[:] = _handlers  # Paddle configures the root logger, which the application should do
logging.root.setLevel(_level)
paddle.disable_signal_handler()  # otherwise its handlers replace ours and Python's


def has_gpu() -> bool:
    """Return whether this build of Paddle supports GPUs and finds one."""
    return bool(paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count())


__all__ = ["has_gpu", "paddle"]
