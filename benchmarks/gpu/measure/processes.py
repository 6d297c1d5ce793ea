"""The system's account of a process."""

from pathlib import Path


def on_device(pid: int) -> bool:
    """Whether it has a CUDA device open."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
    return any(link.startswith("/dev/nvidia") for link in links)
