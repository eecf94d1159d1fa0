"""The peers' virtual environment: made on first use, used again until its requirements or this environment change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from components.contracts.paths import Home

REQUIREMENTS = Path(__file__).with_name("peers.txt")
STAMP = "made_for.txt"


def peers_python(home: Path | None = None) -> Path:
    """The interpreter that imports the peers, this project and this environment's own torch.

    Raises:
        SystemExit: the environment cannot be made; with what pip said.
    """
    folder = (home or _home()) / "bench" / "peers"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = "\n".join([sys.version, torch.__version__, *_site(), REQUIREMENTS.read_text(encoding="utf-8")])
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"making an environment for the peers in {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], f"cannot make a virtual environment in {folder}")
    # What is installed here counts as installed there: the same torch for all contenders, and no second download of it.
    inner = Path(_output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
    (inner / "outer.pth").write_text("\n".join(_site()) + "\n", encoding="utf-8")
    _run(
        [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)],
        f"cannot install {REQUIREMENTS} for the peers of `esmm bench train`: it comes from PyPI, which has to be "
        "reachable once (or set PIP_INDEX_URL or PIP_FIND_LINKS)",
    )
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _home() -> Path:
    home = Home.if_set()
    return home.root if home else Path("var").resolve()


def _site() -> list[str]:
    # Of sys.path, since an environment may itself see another one's packages.
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{failure}. It said: {(done.stderr or done.stdout).strip()[-1000:]}")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
