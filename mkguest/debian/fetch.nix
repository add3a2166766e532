# Files by hash: fixed-output derivations that cannot build, since what they name is put into the store beforehand.
# Nix takes a store path of the same name and hash as their result, so that it asks for nothing else.
{
  lib,
  system,
  lock,
}:

let
  bootstrapBusybox = derivation {
    name = "bootstrap-busybox";
    inherit system;
    # Its name is the message, for there is nothing yet that could print one.
    builder = "/run-mvm-guest-debian-fetch-first";
    outputHashMode = "recursive";
    outputHash = lock.bootstrap;
    mvmClient = "bootstrap";
    mvmWhat = "busybox-static=${lock.packages.busybox-static.version}";
  };

  # File names may hold what store names may not; the same rule stands in fetch.py.
  storeName = file: lib.replaceStrings [ "~" "%" ":" "@" ] [ "-" "-" "-" "-" ] (baseNameOf file);

  # `client` and `what` tell the downloader whose file it is.
  prefetched =
    {
      file,
      sha256,
      client,
      what,
      lock ? null,
    }:
    derivation {
      name = storeName file;
      inherit system;
      builder = "${bootstrapBusybox}/bin/busybox";
      args = [
        "sh"
        "-c"
        "echo \"$mvmWhat is not in the store: run 'mvm-guest build --packages debian' or 'mvm-guest debian fetch'\" >&2; exit 1"
      ];
      outputHashMode = "flat";
      outputHashAlgo = "sha256";
      outputHash = sha256;
      mvmClient = client;
      mvmWhat = what;
      ${if lock == null then null else "mvmLock"} = "${lock}";
    };
in
rec {
  debs = lib.mapAttrs (
    name: package:
    prefetched {
      file = package.path;
      inherit (package) sha256;
      client = "apt";
      what = "${name}=${package.version}";
    }
  ) lock.packages;

  sources = lib.mapAttrs (
    name: source:
    lib.mapAttrsToList (
      file:
      { sha256, ... }:
      prefetched {
        inherit file sha256;
        client = "apt-source";
        what = "${name}=${source.version}";
      }
    ) source.files
  ) lock.sources;

  wheels = lib.mapAttrs (
    name: wheel:
    prefetched {
      inherit (wheel) file sha256;
      client = "pip";
      what = "${name}==${wheel.version}";
    }
  ) lock.wheels;

  fetchCrate =
    {
      name,
      version,
      sha256,
      lock,
    }:
    prefetched {
      file = "${name}-${version}.crate";
      inherit sha256 lock;
      client = "cargo";
      what = "${name}@${version}";
    };

  # What the lock pins and a mirror may drop: crates.io and PyPI keep every version. Of busybox-static only what was
  # taken out of it is used.
  pinned =
    map
      (file: {
        path = file.outPath;
        store_name = file.name;
        sha256 = file.outputHash;
        client = file.mvmClient;
        what = file.mvmWhat;
      })
      (
        lib.attrValues (removeAttrs debs [ "busybox-static" ])
        ++ lib.concatLists (lib.attrValues sources)
        ++ [ bootstrapBusybox ]
      );

  inherit bootstrapBusybox lock;
}
