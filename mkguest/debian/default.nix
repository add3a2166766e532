# The debian package set: Debian 13 packages under nixpkgs' names, as far as guests and this project use them.
# Everything it holds is pinned by lock.json and downloaded beforehand by each registry's own client; nothing in here
# fetches. To add a package to it, name it in names.json and refresh the lock.
{
  system ? "x86_64-linux",
  config ? { },
  overlays ? [ ],
  lockFile ? ./lock.json,
}:

if system != "x86_64-linux" then
  throw "the debian package set has no packages for ${system}: it is made for x86_64-linux"
else
  let
    lib = import ./lib.nix;
    lock = builtins.fromJSON (builtins.readFile lockFile);

    base =
      self:
      {
        inherit lib system config;
        packageSetName = "debian";
        pkgs = self;
        buildPackages = self;
        callPackage = lib.callPackageWith self;
        stdenv = self.stdenvs.cc;
        stdenvNoCC = self.stdenvs.plain;
      }
      // import ./fetch.nix { inherit lib system lock; }
      // import ./builders { inherit self lib system; }
      // import ./units.nix { inherit self lib lock; }
      // import ./packages { inherit self lib; };

    extend =
      previous: overlay: final:
      (previous final) // (overlay final (previous final));
  in
  lib.fix (builtins.foldl' extend base overlays)
