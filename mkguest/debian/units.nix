# Debian packages as store paths from which their programs run: one for each unit of the lock, which is a package, or
# several that depend on each other or look for each other's files beside their own.
{
  self,
  lib,
  lock,
}:

let
  tools = self.debianTree [
    "bash"
    "coreutils"
    "dpkg"
    "findutils"
    "gzip"
    "python3"
    "sed"
    "tar"
    "xz-utils"
  ];

  # All units below `unit`, without itself.
  closure =
    unit:
    map ({ key }: units.${key}) (
      lib.filter ({ key }: key != unit) (
        builtins.genericClosure {
          startSet = [ { key = unit; } ];
          operator = { key }: map (name: { key = name; }) lock.units.${key}.depends;
        }
      )
    );

  fixes = import ./fixes.nix;

  units = lib.mapAttrs (
    name: unit:
    derivation {
      name = "${lib.replaceStrings [ "~" ] [ "-" ] name}-${versionOf name unit}";
      inherit (self) system;
      builder = "${self.bootstrapBusybox}/bin/busybox";
      args = [
        "sh"
        ./builders/enter.sh
        tools
        self.bootstrapBusybox
        ./builders/unit.sh
        "${self.patchelf}/bin"
      ];
      script = ./builders/unit.py;
      debs = map (package: self.debs.${package}) unit.packages;
      packages = map (package: "${package}=${lock.packages.${package}.version}") unit.packages;
      depends = map (dependency: units.${dependency}) unit.depends;
      closure = closure name;
      fix = fixes.${name} or "";
    }
  ) lock.units;

  # A store name holds no epoch and none of the characters that only Debian's versions hold.
  versionOf =
    name: unit:
    let
      package = if lib.elem name unit.packages then name else lib.head unit.packages;
      parts = lib.splitString ":" lock.packages.${package}.version;
    in
    lib.replaceStrings [ "~" ] [ "-" ] (lib.elemAt parts (lib.length parts - 1));

  described =
    name: version: package:
    package
    // {
      pname = name;
      inherit version;
      debNames = [ name ];
      isDebianPackage = true;
      meta.mainProgram = name;
      overrideAttrs =
        _: throw "${name} is a Debian package, which cannot be built anew with other attributes";
      override = _: throw "${name} is a Debian package, which takes no arguments";
    };
in
{
  debianPackages = lib.mapAttrs (
    name: package: described name package.version units.${package.unit}
  ) lock.packages;
}
