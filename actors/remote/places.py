"""Where Ray runs something."""

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def only_on(node_id: str) -> NodeAffinitySchedulingStrategy:
    """On this node, and nowhere else if it is lost: Ray 2.60 puts most of what may also go elsewhere there at once."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)
