# The guest kernel: an uncompressed `vmlinux` made from one configuration for each architecture (config.nix), and the
# `config` it was made with. Which source it is made from is the package set's to say; what it is started with is the
# image's.
{
  lib,
  stdenv,
  buildPackages,
  linux_6_12,
  # Options beside those of config.nix, or in their place.
  extraConfig ? { },
}:

let
  inherit (linux_6_12) src version;
  inherit (stdenv) hostPlatform;

  options = import ./config.nix;
  config = options.common // options.${hostPlatform.parsed.cpu.name} // extraConfig;

  fragmentLine =
    name: value:
    if value == "n" then
      "# CONFIG_${name} is not set\n"
    else if value == "y" || builtins.isInt value then
      "CONFIG_${name}=${toString value}\n"
    else
      "CONFIG_${name}=${builtins.toJSON value}\n";

  # Firecracker takes an ELF file on x86_64 and the flat Image on aarch64; the bundle knows one name.
  image =
    if hostPlatform.isAarch64 then
      {
        target = "Image";
        install = "cp arch/arm64/boot/Image $out/vmlinux";
      }
    else
      {
        target = "vmlinux";
        install = "strip --strip-all -o $out/vmlinux vmlinux";
      };

  common = {
    inherit version src;

    nativeBuildInputs = with buildPackages; [
      bc
      bison
      elfutils
      flex
      perl
    ];

    # nixpkgs' sandbox has no /bin/bash and no /usr/bin/env; a stdenv that has both has no patchShebangs.
    postPatch = ''
      ! declare -F patchShebangs >/dev/null || patchShebangs scripts tools
    '';

    # The kernel brings its own hardening, and has no use for the flags that nixpkgs' compiler adds.
    hardeningDisable = [ "all" ];

    # What the kernel says of its build in /proc/version is the same on every machine.
    env = {
      ARCH = hostPlatform.linuxArch;
      KBUILD_BUILD_TIMESTAMP = "1970-01-01";
      KBUILD_BUILD_USER = "mvm-guest";
      KBUILD_BUILD_HOST = "mvm-guest";
      KBUILD_BUILD_VERSION = "1";
    };
  };

  # The `.config` alone, which takes seconds: every option of config.nix has survived in it, or it is not made.
  configfile = stdenv.mkDerivation (
    common
    // {
      pname = "mvm-guest-kernel-config";
      fragment = lib.concatMapStrings (name: fragmentLine name config.${name}) (lib.attrNames config);
      passAsFile = [ "fragment" ];
      buildPhase = ''
        make KCONFIG_ALLCONFIG="$fragmentPath" allnoconfig
        make olddefconfig
        sh ${./check-config.sh} "$fragmentPath" .config
      '';
      installPhase = "cp .config $out";
      dontConfigure = true;
      dontFixup = true;
    }
  );
in
stdenv.mkDerivation (
  common
  // {
    pname = "mvm-guest-kernel";
    configurePhase = "cp ${configfile} .config";
    buildPhase = "make -j$NIX_BUILD_CORES ${image.target}";
    installPhase = ''
      mkdir $out
      ${image.install}
      cp .config $out/config
    '';
    dontFixup = true;
    allowedReferences = [ ];
    passthru = {
      inherit config configfile;
    };
    meta.description = "Linux kernel of mvm-guest's guests";
  }
)
