{
  description = "Debian stable in the shape of nixpkgs, for machines that reach no binary cache";

  outputs =
    { self }:
    {
      legacyPackages.x86_64-linux = import ./. { system = "x86_64-linux"; };
      inherit (self.legacyPackages.x86_64-linux) lib;
    };
}
