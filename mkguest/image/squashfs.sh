# shellcheck shell=bash
# A squashfs from the stream: LZ4 in its high compression mode, extended attributes kept, nothing of the build in it.
stream | mksquashfs - "$out" -tar -comp lz4 -Xhc -b 1M -xattrs -no-progress -quiet \
  -default-mode 755 -default-uid 0 -default-gid 0 -root-mode 755 -root-uid 0 -root-gid 0 \
  -mkfs-time 1 -root-time 1 -processors "$NIX_BUILD_CORES"
