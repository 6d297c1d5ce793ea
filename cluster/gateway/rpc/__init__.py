"""The gRPC server: its services, and what every call goes through."""
