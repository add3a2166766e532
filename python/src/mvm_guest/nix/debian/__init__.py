"""The debian package set's supply: what is locked, and how it gets into the Nix store.

The Nix side (``mkguest/debian/``) only names files by hash; the modules here lock them (``lock``),
say what of them the mirror has dropped (``mirror``), and download them with each registry's own
client (``fetch``: apt, cargo, pip), so that no build ever fetches anything.
"""
