"""The images behind an instance's config, secrets and data drives.

They are made with e2fsprogs, without root and without mounting. Where they lie and when they are
made is the instance's business.
"""
