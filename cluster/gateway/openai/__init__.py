"""The OpenAI-compatible door, on the HTTP port: bodies become the gateway's own requests, pieces become its objects."""
