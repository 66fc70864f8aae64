"""An HTTP and JSON interface to the recall service, and the explorer page.

The gateway calls a recall server over gRPC. It loads no model.
"""
