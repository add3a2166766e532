"""Puts what is no Python into what is built: Nix expressions, lock files and templates.

A wheel carries them inside the package; a source distribution beside it, from where a wheel that
is built of it takes them. An editable installation uses the checkout's own.
"""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CarrySource(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        here = Path(self.root)
        sys.path.insert(0, str(here / "src"))
        from mvm_guest.nix.source import source_files

        root = here / "source" if (here / "source").is_dir() else here.parent
        below = "source" if self.target_name == "sdist" else "mvm_guest/_source"
        for file in source_files(root):
            build_data["force_include"][str(root / file)] = f"{below}/{file}"
