"""Nix, seen from Python: quoting, rendering, and starting it."""
