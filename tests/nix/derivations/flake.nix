# What the tests and the linter build beside guests.
{
  inputs.mvm.url = "github:mvm-guest/mvm-guest";

  outputs =
    { mvm, ... }:
    let
      system = "x86_64-linux";
      pkgs = mvm.inputs.nixpkgs.legacyPackages.${system};
      inherit (mvm.packages.${system}) agent;
    in
    {
      packages.${system} = {
        agent-tests = agent.tests;

        # What clippy says of the agent: nothing.
        agent-clippy = agent.tests.overrideAttrs (old: {
          pname = "${old.pname}-clippy";
          nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.clippy ];
          buildPhase = "cargo clippy --quiet --frozen --all-targets --all-features -- --deny warnings 2>lints || true";
          installPhase = "cp lints $out";
        });
      };
    };
}
