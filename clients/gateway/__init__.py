"""An HTTP and JSON face of the recall service, and the explorer page. Speaks gRPC to a server, loads no model."""
