# The guests that the tests boot, each as ext4 and as squashfs. The agent of the variant `dev` lets tests look at them
# from inside.
{
  inputs.mvm.url = "github:mvm-guest/mvm-guest";
  inputs.nixpkgs.follows = "mvm/nixpkgs";

  outputs =
    { mvm, nixpkgs, ... }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      inherit (pkgs) lib;
      mkGuest = mvm.lib.${system}.mkGuest;

      # Leaves a file `ended-NAME` when it is asked to end.
      polite = name: {
        command = "trap 'echo >/mnt/data/ended-${name}; exit 0' TERM; while :; do sleep 1 & wait $!; done";
      };

      # Makes the system calls that its arguments name, and prints `NAME ERRNO` for each, 0 for success.
      try = pkgs.stdenv.mkDerivation {
        name = "try";
        src = ./try.c;
        dontUnpack = true;
        buildPhase = "gcc -O2 -static -o try $src";
        installPhase = "install -D try $out/bin/try";
      };
      tiers = [
        "essential"
        "minimal"
        "standard"
        "network"
        "unrestricted"
      ];

      guests = {
        # What most tests of boot, drives and shutdown look at.
        plain = {
          services.web = polite "web" // {
            env.GIVEN = "by the image";
            env.ALSO_GIVEN = "by the image";
            preStart = ''
              umask >/run/pre-start
              id -u >>/run/pre-start
              export MADE="by preStart"
            '';
          };
          services.other = polite "other";
          users.guest = { };
          healthChecks.web.healthCmd = "cat /proc/self/status >/tmp/check-status";
          probes.free = {
            cmd = "echo '{\"free\": 1}'";
            outputFormat = "json";
          };
          mountPoints = [ "/db" ];
          extraFiles."/etc/plain.conf" = {
            content = "plain\n";
            mode = "0640";
          };
          extraFiles."/srv/www/.hidden/index \"1\".html".source = ./page.html;
        };

        # Services that end, hang and talk.
        unruly = {
          services.ending.command = "exit 3";
          services.unprepared = {
            preStart = "false";
            command = "echo started >/mnt/data/unprepared";
          };
          services.stubborn.command = "trap '' TERM; while :; do sleep 1; done";
          services.lasting.command = "sleep 62";
          services.parent.command = "sleep 1000001 & sleep 2; exit 0";
          services.chatty = {
            command = "head -c 2500000 /dev/zero | tr '\\000' x; echo; echo the last line; exec sleep 1000000";
            logFile = "/var/log/chatty.log";
          };
          services.linked = {
            preStart = "ln -sf /etc/hostname /var/log/linked.log";
            command = "echo through a link; exec sleep 1000000";
            logFile = "/var/log/linked.log";
          };
        };

        confined = {
          packages = [ try ];
          services = lib.listToAttrs (
            map (
              tier:
              lib.nameValuePair tier {
                command = "cat /proc/self/status; try mkdir unix inet netlink packet vsock clone3 unshare mount ptrace; exec sleep 1000000";
                seccomp = tier;
                logFile = "/var/log/${tier}.log";
              }
            ) tiers
          );
        };

        # A program with many libraries, in a guest that holds nothing but its closure.
        python = {
          packages = [ pkgs.python3 ];
          services.web = {
            command = "exec python3 -m http.server 8080";
          };
          healthChecks.web = {
            healthCmd = "python3 -c 'import ssl, sqlite3, ctypes, lzma; ssl.create_default_context()'";
            healthIntervalSecs = 5;
            healthTimeoutSecs = 60;
          };
        };

        # A database whose files are on the data drive.
        database = {
          packages = [ pkgs.postgresql ];
          services.database = {
            user = "postgres";
            preStart = ''
              install -d -o postgres -g postgres -m 0700 /mnt/data/pg /run/postgresql
            '';
            command = ''
              [ -e /mnt/data/pg/PG_VERSION ] || initdb -D /mnt/data/pg --auth=trust --no-locale --encoding=UTF8 || exit
              exec postgres -D /mnt/data/pg -k /run/postgresql -h ""
            '';
          };
          healthChecks.database = {
            healthCmd = "psql -h /run/postgresql -d postgres -Atc 'SELECT 1'";
            healthIntervalSecs = 2;
          };
        };
      };
    in
    {
      packages.${system} = lib.listToAttrs (
        lib.concatMap (
          name:
          map
            (
              rootfs:
              lib.nameValuePair "${name}-${rootfs}" (
                mkGuest (
                  guests.${name}
                  // {
                    inherit name rootfs;
                    variant = "dev";
                  }
                )
              )
            )
            [
              "ext4"
              "squashfs"
            ]
        ) (lib.attrNames guests)
      );
    };
}
