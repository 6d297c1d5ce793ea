"""The control plane: configuration, engine, gateway, client, launch, commands."""
