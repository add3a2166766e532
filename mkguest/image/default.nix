# The root filesystem's image, ext4 or squashfs, from one sorted tar stream of the tree and its closure.
{
  lib,
  stdenvNoCC,
  buildPackages,
  guest,
  tree,
  closure,
}:

stdenvNoCC.mkDerivation {
  name = "guest-${guest.name}-rootfs.${guest.rootfs}";
  inherit tree closure;
  inherit (guest) freeSpaceMiB;
  nativeBuildInputs = {
    ext4 = [ buildPackages.e2fsprogs ];
    squashfs = [ buildPackages.squashfsTools ];
  }.${guest.rootfs} ++ [
    buildPackages.gnutar
    buildPackages.findutils
    buildPackages.gawk
  ];
  buildCommand = ''
    export LC_ALL=C
    source ${./stream.sh}
    source ${./. + "/${guest.rootfs}.sh"}
  '';
}
