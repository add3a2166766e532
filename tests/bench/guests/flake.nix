# What is measured: the base guest, and the bare busybox that it is measured against.
{
  inputs.mvm.url = "github:mvm-guest/mvm-guest";
  inputs.nixpkgs.follows = "mvm/nixpkgs";

  outputs =
    { mvm, nixpkgs, ... }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      guest = mvm.lib.${system}.mkGuest {
        name = "base";
        rootfs = "squashfs";
        cacert = null;
        services.web.command = "exec sleep 1000000";
        healthChecks.web.healthCmd = "true";
      };
    in
    {
      packages.${system} = {
        inherit guest;
        # The same kernel and busybox, with a script that mounts and checks the same, starts the service, runs its check
        # once, and answers nobody.
        bare =
          pkgs.runCommand "bare.squashfs"
            {
              nativeBuildInputs = [ pkgs.squashfsTools ];
              init = ./bare-init;
              busybox = pkgs.pkgsStatic.busybox;
            }
            ''
              mkdir -p root/bin root/dev root/proc root/sys root/run root/tmp root/etc root/var/log root/home root/root
              mkdir -p root/mnt/config root/mnt/secrets root/mnt/data
              cp $busybox/bin/busybox root/bin/
              for link in $busybox/bin/* $busybox/sbin/*; do
                [ -e root/bin/''${link##*/} ] || ln -s busybox root/bin/''${link##*/}
              done
              install -m 555 $init root/init
              echo 'root:x:0:0::/root:/bin/sh' >root/etc/passwd
              echo 'web:x:1100:900::/home/web:/bin/false' >>root/etc/passwd
              echo 'mvm:x:900:web' >root/etc/group
              mksquashfs root $out -comp lz4 -Xhc -b 1M -quiet -no-progress -all-root -mkfs-time 1 -all-time 1
            '';
      };
    };
}
