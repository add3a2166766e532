# mkGuest: a guest's description becomes a bundle, that is a kernel, a root filesystem and guest.json, which says what
# is inside. What the arguments mean and default to stands in arguments.nix; this file only puts the parts together.
{
  pkgs,
  packageSet ? {
    name = pkgs.packageSetName or "nixpkgs";
    narHash = null;
  },
}:

let
  inherit (pkgs) lib;

  kernel = pkgs.callPackage ./kernel { };
  agents = {
    prod = pkgs.callPackage ./agent { };
    dev = pkgs.callPackage ./agent { variant = "dev"; };
  };

  checkArguments = import ./arguments.nix {
    inherit lib;
    defaults = {
      inherit kernel;
      guestAgent = variant: agents.${variant};
      cacert = pkgs.buildPackages.cacert;
    };
  };

  mkGuest =
    arguments:
    let
      guest = checkArguments arguments;

      # The files of the root filesystem but for /nix/store.
      tree = pkgs.callPackage ./guest { inherit guest; };

      # The store paths that those files and the guest's packages refer to, in the guest's /nix/store.
      closure = pkgs.buildPackages.closureInfo { rootPaths = [ tree ] ++ guest.packages; };

      rootfs = pkgs.callPackage ./image { inherit guest tree closure; };
    in
    pkgs.callPackage ./bundle.nix {
      inherit
        guest
        tree
        closure
        rootfs
        packageSet
        ;
    };
in
{
  inherit kernel mkGuest;
  agent = agents.prod;
}
