"""Guest image toolchain for Firecracker microVMs: Nix builds the image, Python does the rest."""

__version__ = "0.1.0"
