# The source of Debian's stable kernel; what mkGuest boots is built from it with the project's own configuration.
{
  runCommandCC,
  debs,
  lock,
  lib,
}:

let
  deb = "linux-source-6.12";
  version = lib.head (lib.splitString "-" lock.packages.${deb}.version);
in
{
  inherit version;
  src = runCommandCC "linux-${version}.tar.xz" { deb = debs.${deb}; } ''
    ar p "$deb" data.tar.xz | xz -dc | tar -xO ./usr/src/linux-source-6.12.tar.xz >"$out"
  '';
}
