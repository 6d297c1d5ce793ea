"""One module for each client. It runs in the client's environment: of ours it imports `tests.clients.checks` alone."""
