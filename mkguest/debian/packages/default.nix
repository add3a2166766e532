# nixpkgs' names for what the debian package set holds, and the few packages that are more than one Debian package.
{ self, lib }:

let
  inherit (self) debianPackages callPackage;
in
{
  inherit (debianPackages)
    bash
    bc
    binutils
    bison
    bzip2
    coreutils
    curl
    diffutils
    findutils
    flex
    gawk
    git
    gzip
    htop
    iproute2
    jq
    less
    nginx
    openssl
    patch
    perl
    procps
    ripgrep
    socat
    strace
    tzdata
    util-linux
    ;
  bashInteractive = debianPackages.bash;
  dpkg = debianPackages.dpkg;
  elfutils = debianPackages.libelf-dev;
  gnugrep = debianPackages.grep;
  gnumake = debianPackages.make;
  gnused = debianPackages.sed;
  gnutar = debianPackages.tar;
  libcap_ng = debianPackages.libcap-ng-dev;
  musl = debianPackages.musl-tools;
  pkg-config = debianPackages.pkgconf;
  postgresql = debianPackages.postgresql-17;
  postgresql_17 = debianPackages.postgresql-17;
  redis = debianPackages.redis-server;
  sqlite = debianPackages.sqlite3;
  squashfsTools = debianPackages.squashfs-tools;
  utillinux = debianPackages.util-linux;
  xz = debianPackages.xz-utils;

  e2fsprogs = callPackage ./e2fsprogs.nix { };
  cacert = callPackage ./cacert.nix { };
  firecracker = callPackage ./firecracker.nix { };
  linux_6_12 = callPackage ./linux.nix { };
  nodejs_22 = callPackage ./nodejs.nix { };
  nodejs = self.nodejs_22;
  patchelf = callPackage ./patchelf.nix { };
  pkgsStatic = self // {
    busybox = callPackage ./busybox.nix { };
    stdenv = self.stdenv // {
      cc = callPackage ./musl-cc.nix { };
    };
  };
}
// import ./python.nix { inherit self lib; }
// import ./rust.nix { inherit self lib; }
