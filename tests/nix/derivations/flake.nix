# What the tests and the linter build beside guests.
{
  inputs.mvm.url = "github:mvm-guest/mvm-guest";
  inputs.nixpkgs.follows = "mvm/nixpkgs";

  outputs =
    { mvm, nixpkgs, ... }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      inherit (pkgs) lib;
      inherit (mvm.packages.${system}) agent;
      inherit (mvm.lib.${system}) mkGuest;

      prefixed = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}-${name}");

      guest = mkGuest {
        name = "test";
        packages = [ pkgs.jq ];
        services.web.command = "exec sleep 1000000";
      };

      tested = {
        inherit guest;
        guest-rootfs = guest.rootfs;
        guest-tree = guest.tree;
        strings = import ./strings.nix { inherit pkgs; };

        # What the check of a kernel configuration says of options that cannot survive.
        kernel-lost =
          (pkgs.callPackage "${mvm}/mkguest/kernel" {
            extraConfig = {
              NO_SUCH_OPTION = "y";
              NR_CPUS = 1000000;
              VIRTIO_BLK = "y";
            };
          }).configfile.overrideAttrs
            (old: {
              buildPhase = ''
                if (
                ${old.buildPhase}
                ) 2>errors; then
                  echo "options that cannot survive did" >&2
                  exit 1
                fi
              '';
              installPhase = "cp errors $out";
            });
      }
      // prefixed "runs" (import ./programs.nix { inherit pkgs; })
      // prefixed "makes" (import ./builders.nix { inherit pkgs nixpkgs system; });
    in
    {
      packages.${system} = tested // {
        # What one look at Nix's plan has to find missing, so that it is downloaded at once.
        all = pkgs.writeText "all" (lib.concatMapStrings (test: "${test}\n") (lib.attrValues tested));

        # The agent's tests as programs: they become other users, which the sandbox has none of.
        agent-tests = agent.tests.overrideAttrs (old: {
          pname = "${old.pname}-programs";
          buildPhase = ''
            export HOME=$PWD
            for features in testing testing,exec; do
              cargo test --frozen --features "$features" --no-run --target-dir "$out/$features"
            done
          '';
          installPhase = ''
            rm -rf "$out"/*/debug/build "$out"/*/debug/incremental "$out"/*/debug/.fingerprint
            find "$out" -type f \( ! -perm -u+x -o -name '*.so' \) -delete
            # What is tested stands among the tests, too.
            for features in "$out"/*; do
              find "$features/debug/deps" -samefile "$features/debug/mvm-guest-agent" -delete
            done
          '';
          dontFixup = "";
        });

        # What clippy says of the agent: nothing.
        agent-clippy = agent.tests.overrideAttrs (old: {
          pname = "${old.pname}-clippy";
          nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.clippy ];
          buildPhase = "cargo clippy --quiet --frozen --all-targets --all-features -- --deny warnings 2>lints || true";
          installPhase = "cp lints $out";
        });
      };

      # What stops an evaluation.
      wrong = lib.mapAttrs (_: arguments: (mkGuest ({ name = "x"; } // arguments)).drvPath) {
        unknown.servces = { };
        name.name = "Not a name";
        command.services.web.env.A = "b";
        inner.services.web = {
          command = "true";
          usr = "web";
        };
        type.services.web.command = 3;
        root.services.web = {
          command = "true";
          user = "root";
        };
        agent.users.mvm-agent = { };
        group.users.mvm = { };
        uid.users = {
          a.uid = 2000;
          b.uid = 2000;
        };
        fixed-uid.users.a.uid = 900;
        root-uid.users.a.uid = 0;
        relative.extraFiles."etc/x".content = "";
        climbing.extraFiles."/etc/../x".content = "";
        own.extraFiles."/etc/passwd".content = "";
        both.extraFiles."/etc/x" = {
          content = "";
          source = ./flake.nix;
        };
        inside.extraFiles = {
          "/etc/a".content = "";
          "/etc/a/b".content = "";
        };
        directory.extraFiles."/var/lib".content = "";
        mode.extraFiles."/etc/x" = {
          content = "";
          mode = "4755";
        };
        mount-point.mountPoints = [ "/nix/x" ];
        verified = {
          verifiedBoot = true;
          rootfs = "ext4";
        };
        tier.services.web = {
          command = "true";
          seccomp = "loose";
        };
      };
      missing = {
        debian = pkgs.debianPackages.htopp.outPath;
        attribute = pkgs.python4.outPath;
        module = pkgs.python3Packages.flaks.outPath;
      };
    };
}
