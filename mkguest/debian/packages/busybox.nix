# busybox from source, static with musl, under nixpkgs' defaults: every applet, and a shell that takes a command from
# PATH before an applet.
{
  stdenv,
  sources,
  lib,
  lock,
  musl,
  bzip2,
}:

let
  version = lib.head (lib.splitString "-" (lib.removePrefix "1:" lock.sources.busybox.version));
  make =
    { extraConfig }:
    stdenv.mkDerivation {
      pname = "busybox-static";
      inherit version extraConfig;
      src = lib.head sources.busybox;
      nativeBuildInputs = [
        bzip2
        musl
      ];
      KCONFIG_NOTIMESTAMP = 1;
      configurePhase = ''
        runHook preConfigure
        # musl brings no kernel headers: those of Debian come after its own.
        export KBUILD_BUILD_TIMESTAMP=@1
        makeFlags='CC=musl-gcc HOSTCC=gcc'
        make $makeFlags defconfig
        while read -r name value; do
          [ -n "$name" ] || continue
          sed -i "/^$name=/d; /^# $name is not set/d" .config
          echo "$name=$value" >>.config
        done <<< "
          CONFIG_STATIC y
          CONFIG_LFS y
          CONFIG_INSTALL_NO_USR y
          CONFIG_TC n
          CONFIG_FEATURE_COPYBUF_KB 64
          CONFIG_FEATURE_PREFER_APPLETS n
          CONFIG_FEATURE_SH_STANDALONE n
          CONFIG_PREFIX \"$out\"
          CONFIG_EXTRA_CFLAGS \"-idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu\"
          $extraConfig
        "
        yes "" | make $makeFlags oldconfig >/dev/null || true
        runHook postConfigure
      '';
      buildPhase = ''
        make -j"$NIX_BUILD_CORES" $makeFlags busybox
      '';
      installPhase = ''
        make $makeFlags install >/dev/null
        rm -f "$out/linuxrc"
      '';
      dontFixup = true;
      meta.mainProgram = "busybox";
      passthru.override = { extraConfig }: make { inherit extraConfig; };
    };
in
make { extraConfig = ""; }
