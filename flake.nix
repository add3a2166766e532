{
  description = "Guest images for Firecracker microVMs";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEach =
        f:
        builtins.listToAttrs (
          map (system: {
            name = system;
            value = f system;
          }) systems
        );
      mkguest = forEach (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        import ./mkguest {
          inherit pkgs;
          packageSet = {
            name = pkgs.packageSetName or "nixpkgs";
            inherit (nixpkgs) narHash;
          };
        }
      );
    in
    {
      lib = forEach (system: {
        inherit (mkguest.${system}) mkGuest;
      });
      packages = forEach (system: {
        inherit (mkguest.${system}) kernel agent;
      });
    };
}
