"""The public gRPC interface, `eightwinds.v1`."""
