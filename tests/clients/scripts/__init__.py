"""What each client does. A module runs in the client's environment: of ours it imports `tests.clients.checks` alone."""
