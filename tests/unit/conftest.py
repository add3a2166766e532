"""What several test modules need: bundles, a place of one's own, and the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeBundle = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's data, cache and settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MVM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MVM_PACKAGES", raising=False)


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Make a bundle whose files have the right form and small, chosen content."""

    def make(name: str = "hello", content: bytes = b"", **described: Any) -> Path:
        directory = tmp_path / "bundles" / f"{name}-{len(list(tmp_path.glob('bundles/*')))}"
        directory.mkdir(parents=True)
        kernel = bytearray(b"\x7fELF" + bytes(60))
        kernel[18] = 62
        rootfs = bytearray(600_000)
        rootfs[1080:1082] = b"\x53\xef"
        rootfs += content
        (directory / "vmlinux").write_bytes(kernel)
        (directory / "rootfs.ext4").write_bytes(rootfs)
        guest = {
            "schema": 1,
            "name": name,
            "system": "x86_64-linux",
            "hostname": name,
            "serviceGroup": "mvm",
            "variant": "prod",
            "rootfs": {
                "type": "ext4",
                "file": "rootfs.ext4",
                "sizeBytes": len(rootfs),
                "label": "mvm-root",
                "verity": None,
            },
            "kernel": {"version": "6.12", "bootArgs": "root=/dev/vda init=/init"},
            "agent": {"version": "0.1.0", "port": 5252},
            "resources": {"vcpus": 1, "memMib": 256, "dataMib": 0},
            "mountPoints": [],
            "services": ["web"],
            "healthChecks": ["web"],
            "probes": [],
            "users": [],
            "packageSet": {"name": "debian", "narHash": "sha256-abc"},
            "closure": [],
        } | described
        (directory / "guest.json").write_text(json.dumps(guest, sort_keys=True))
        return directory

    return make


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `mvm-guest` as its users do, in an empty directory."""
    directory = tmp_path / "here"
    directory.mkdir()

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mvm_guest", *arguments],
            cwd=directory,
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
