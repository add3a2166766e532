# shellcheck shell=bash
# An ext4 from the stream, with `freeSpaceMiB` left free. It has no journal: each instance starts from a fresh copy.

# Blocks of 4 KiB: each file's content and one for its extents if it is long, directories, long links; then inodes,
# 16 to a block, one for each 16 KiB of free space beside those in use; then bitmaps and group descriptors, below 1 in
# 256, and room for what directories grow by.
read -r inodes blocks < <(
  {
    find root -printf '%y %s\n'
    storePaths | tr '\n' '\0' | xargs -0r -I{} find {} -printf '%y %s\n'
  } | awk -v freeMiB="$freeSpaceMiB" '
    { inodes++ }
    $1 == "f" { blocks += int(($2 + 4095) / 4096) + ($2 > 134217728) }
    $1 == "d" { blocks += int(($2 + 4095) / 4096) }
    $1 == "l" && $2 >= 60 { blocks++ }
    END { inodes += 16 + freeMiB * 64; print inodes, int((blocks + inodes / 16) * 257 / 256) + 64 }
  '
)
truncate --size=$(((blocks + freeSpaceMiB * 256) * 4096)) image
stream | SOURCE_DATE_EPOCH=1 mke2fs -q -t ext4 -b 4096 -I 256 -N "$inodes" -m 0 -L mvm-root \
  -U 6d766d2d-726f-6f74-8000-000000000000 \
  -E hash_seed=6d766d2d-7365-6564-8000-000000000000,root_owner=0:0,lazy_itable_init=0,nodiscard \
  -O ^has_journal,^resize_inode,^metadata_csum_seed,^orphan_file -d - image
e2fsck -fn image >/dev/null
mv image "$out"
