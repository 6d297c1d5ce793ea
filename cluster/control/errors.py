"""Why a change of the replicas is refused."""


class NoSuchNode(Exception):
    """There is no such node, or it is gone."""


class HeadNode(Exception):
    """The head runs there, or may, and cannot be moved."""


class RevisionMoved(Exception):
    """The desired counts are not those that the caller knows."""


class ReplicasFixed(Exception):
    """The replicas cannot be changed."""
