# shellcheck shell=bash
# What a root filesystem holds, as one tar stream (see tar(5)): the tree, then its closure below nix/store, both sorted,
# owned by root, with one time for all, hard links written out. `tree`, `closure` and `modes` come from the derivation.

# The tree with the permissions that it has in the guest, as the directory `root`: it is small, unlike the closure.
makeRoot() {
  cp -r --no-preserve=ownership,timestamps -- "$tree" root
  chmod -R u+w root
  while read -r mode path; do
    chmod -- "$mode" "root$path"
  done <"$modesPath"
}

# The closure's store paths without the tree, which is the root itself.
storePaths() {
  grep -vxF -- "$tree" "$closure/store-paths" || true
}

archive() {
  tar --create --sort=name --format=gnu --blocking-factor=1 --hard-dereference \
    --owner=0 --group=0 --numeric-owner --mtime=@1 "$@"
}

# Each archive ends in two empty blocks, which would end the stream.
stream() {
  find root -mindepth 1 -maxdepth 1 -printf '%f\n' | sort |
    archive --directory=root --files-from=- | head --bytes=-1024
  storePaths | sed 's|^/||' | archive --directory=/ --files-from=-
}
