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
  # The store keeps no permissions but the one to execute: "MODE PATH" for those that are others than the usual.
  modes = lib.concatMapStrings ({ mode, path, ... }: "${mode} ${path}\n") (
    [
      {
        mode = "0700";
        path = "/root";
      }
      {
        mode = "1777";
        path = "/tmp";
      }
      {
        mode = "1777";
        path = "/var/tmp";
      }
    ]
    ++ guest.extraFiles
  );
  passAsFile = [ "modes" ];
  nativeBuildInputs =
    {
      ext4 = [ buildPackages.e2fsprogs ];
      squashfs = [ buildPackages.squashfsTools ];
    }
    .${guest.rootfs}
    ++ [
      buildPackages.gnutar
      buildPackages.findutils
      buildPackages.gawk
    ];
  buildCommand = ''
    export LC_ALL=C
    source ${./stream.sh}
    makeRoot
    source ${./. + "/${guest.rootfs}.sh"}
  '';
}
