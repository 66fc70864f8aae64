"""Paddle, imported once and quietly: `from mind.paddle_runtime import paddle`."""

import logging
import os
import warnings

os.environ.setdefault("GLOG_minloglevel", "2")
_handlers, _level = logging.root.handlers[:], logging.root.level

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for ccache, which only its C++ extension builder needs
    import paddle

logging.root.handlers[:] = _handlers  # it configures the root logger, which is the application's business
logging.root.setLevel(_level)
paddle.disable_signal_handler()  # or its handlers replace ours and Python's


def has_gpu() -> bool:
    """Whether this build of Paddle can compute on a GPU, and finds one."""
    return bool(paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count())


__all__ = ["has_gpu", "paddle"]
