"""Paddle, imported once and quietly: `from mind.paddle_runtime import paddle`."""

import os
import warnings

os.environ.setdefault("GLOG_minloglevel", "2")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for ccache, which only its C++ extension builder needs
    import paddle

paddle.disable_signal_handler()  # or Paddle's handlers replace ours and Python's

__all__ = ["paddle"]
