"""The machine: card, memory, driver, torch, and which attention libraries are there."""

import importlib.metadata
import os
import platform
import subprocess

import psutil
import torch

from benchmarks.gpu.bench import Bench
from model.attention.attention import backends, fault

TITLE = "what the machine is"
_ASKED = "name,driver_version,memory.total,memory.used,power.limit,clocks.max.sm,pcie.link.gen.max,mig.mode.current"
_PACKAGES = ("ray", "transformers", "triton", "flash-attn", "flash-attn-4", "tokenspeed-fa3")


def run(bench: Bench) -> None:
    """See TITLE."""
    write = bench.findings.fact
    write("machine", f"{os.cpu_count()} CPUs, {platform.machine()}, {psutil.virtual_memory().total >> 30} GiB")
    write("system", f"{platform.release()}, Python {platform.python_version()}")
    write("torch", f"{torch.__version__}, CUDA {torch.version.cuda}, arches {torch.cuda.get_arch_list()}")
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        free, total = torch.cuda.mem_get_info(bench.device)
        write("card", f"{properties.name}, sm_{properties.major}{properties.minor}")
        write("multiprocessors", properties.multi_processor_count)
        write("memory", f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} free; L2 {properties.L2_cache_size >> 20} MiB")
        write("nvidia-smi", _nvidia_smi())
    bench.findings.check("Ray sees what torch sees", *_ray_sees(torch.cuda.device_count()))
    for package in _PACKAGES:
        try:
            write(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            write(package, "not installed")
    for head_dim in (128, 64):
        for page_size in (16, 256):
            found = backends(torch.bfloat16, bench.device, head_dim, None, page_size)
            wrong = {b.name: fault(b, torch.bfloat16, bench.device, head_dim, None, page_size) for b in found}
            text = ", ".join(f"{name} ({why})" if why else name for name, why in wrong.items())
            write(f"attention offered, bf16, head_dim {head_dim}, pages of {page_size}", text)


def _ray_sees(wanted: int) -> tuple[bool, str]:
    """Ray counts by NVML; where it finds none, actors that ask for a share of a card wait for ever."""
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    found = NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
    return found == wanted, f"{found} of {wanted} CUDA devices"


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=15, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"not to be asked: {error}"
