# Runs a build inside a Debian tree: a user namespace of its own, the tree as root, and /nix, /dev, /proc, /build of the
# sandbox bound into it. gcc, rustc and scripts with absolute paths then work as they do on a Debian system.
# Arguments: the tree, the busybox, the bash script to run, the directories that come first on PATH. The variables are
# the derivation's, so that this script has none of its own.
set -eu

# The namespace has root alone: nothing can be given to another owner.
export TAR_OPTIONS=--no-same-owner
exec unshare -U -r -m "$2/bin/busybox" sh -eu -c '
  mkdir "$NIX_BUILD_TOP/.root"
  mount -o bind "$1" "$NIX_BUILD_TOP/.root"
  mount -o rbind /nix "$NIX_BUILD_TOP/.root/nix"
  mount -o rbind /dev "$NIX_BUILD_TOP/.root/dev"
  mount -o rbind /proc "$NIX_BUILD_TOP/.root/proc"
  mount -o bind /etc "$NIX_BUILD_TOP/.root/etc"
  mount -o bind "$NIX_BUILD_TOP" "$NIX_BUILD_TOP/.root/build"
  mount -o bind "$NIX_BUILD_TOP" "$NIX_BUILD_TOP/.root/tmp"
  export PATH=${4:+$4:}/usr/bin HOME=/homeless-shelter TMPDIR=/build TMP=/build TEMP=/build SHELL=/bin/bash
  set -- "$NIX_BUILD_TOP/.root" "$3"
  export NIX_BUILD_TOP=/build
  exec chroot "$1" /bin/bash -eu "$2"
' enter "$@"
