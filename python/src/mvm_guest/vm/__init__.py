"""Instances: revisions that run as virtual machines in the background, each in a directory.

`lifecycle.py` starts, stops and removes them; a backend is one module that turns a Firecracker
configuration into what its hypervisor is started with. Drives are made by `drives`, and guests
are asked through `agent`.
"""
