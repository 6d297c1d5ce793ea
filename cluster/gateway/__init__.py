"""The doors: the only home of protos, gRPC and HTTP."""
