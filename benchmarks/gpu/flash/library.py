"""flash-attn 2 for the card at hand: built beside the first steps, there for those that need it."""

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.gpu.findings import Findings

KEPT = "flash_attn_site.tar.xz"


class FlashLibrary:
    """A build in a process of its own. `site` is for the import path: it appears when the build has ended well, all at
    once. If it has not, `failure` appears instead and says why; `absent` does where there is nothing to build.
    """

    def __init__(self, source: Path, out: Path) -> None:
        """`source` is flash-attn's archive, of the bundle; the built library is kept in `out` as well."""
        self._folder = Path(tempfile.mkdtemp(prefix="ewf-"))
        self.site, self.failure = self._folder / "site", self._folder / "failure"
        self.absent = self._folder / "absent"
        self._source, self._out = source, out
        self._build: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to build, giving way to the steps that run meanwhile."""
        if not self._source.exists():
            self.absent.write_text(f"{self._source} is not there, which make gpu-bundle makes")
            return
        command = [sys.executable, "-m", "benchmarks.gpu.flash.build", "--source", str(self._source)]
        self._build = subprocess.Popen(
            ["nice", "-n", "10", *command, "--to", f"{self.site}.new"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._wait, args=(self._build, time.monotonic()), daemon=True).start()

    def _wait(self, build: "subprocess.Popen[str]", began: float) -> None:
        said, _ = build.communicate()
        if build.returncode:
            self.failure.write_text(" / ".join(said.strip().splitlines()[-3:])[-600:] or f"exit {build.returncode}")
            return
        os.replace(f"{self.site}.new", self.site)
        findings = Findings(self._out, "flash")
        findings.fact("flash-attn 2 was built in", f"{time.monotonic() - began:.0f} s, beside other steps")
        with tarfile.open(self._out / f".{KEPT}", "w:xz") as archive:
            archive.add(self.site, "site", filter=lambda member: None if "/.build" in member.name else member)
        os.replace(self._out / f".{KEPT}", self._out / KEPT)

    def stop(self) -> None:
        """End a build that nobody waits for any more, with its compilers: each is a process group of its own."""
        if self._build is None or self._build.poll() is not None:
            return
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self._build.pid:
                    process.kill()
        self._build.wait()

    def remove(self) -> None:
        """Nothing is left of it but what was kept."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
