"""What of a configuration is refused before anything starts, beyond what each key by itself allows."""

from cluster.engine.served_model import ServedModel
from cluster.settings.address import is_loopback
from cluster.settings.config import Config


def open_model(config: Config) -> ServedModel:
    """The model to serve. ValueError if there is none, or the cluster is configured for another number of experts."""
    served = ServedModel.open(config.model.path)
    count = served.checkpoint.config.num_local_experts
    if count != config.experts.count:
        raise ValueError(
            f"the checkpoint has {count} experts, the cluster is configured for {config.experts.count}: "
            f"set experts.count={count}"
        )
    return served


def check_exposure(config: Config) -> None:
    """ValueError if other machines could send requests and nothing asks who they are."""
    for address in (config.gateway.listen, config.gateway.http):
        if not (is_loopback(address) or config.security.token_file or config.security.insecure):
            raise ValueError(
                f"{address} can be reached from other machines, and anybody there could send requests: give a "
                "--token-file, listen on 127.0.0.1, or say --insecure if the network is yours"
            )
