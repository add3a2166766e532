# How derivations of the debian package set are built: trees of unpacked packages, and the two stdenvs and the trivial
# builders that run inside such trees.
{
  self,
  lib,
  system,
}:

let
  inherit (self) debs lock bootstrapBusybox;

  closureOf =
    names:
    let
      unitsOf = name: lock.packages.${name}.unit;
      units = builtins.genericClosure {
        startSet = map (name: { key = unitsOf name; }) names;
        operator = { key }: map (unit: { key = unit; }) lock.units.${key}.depends;
      };
    in
    lib.sort lib.lessThan (lib.concatMap ({ key }: lock.units.${key}.packages) units);

  # A tree in Debian's own layout that holds the packages `names` and all that they depend on.
  tree =
    names:
    derivation {
      name = "debian-tree";
      inherit system;
      builder = "${bootstrapBusybox}/bin/busybox";
      args = [
        "sh"
        ./unpack-tree.sh
      ];
      debs = map (name: debs.${name}) (closureOf names);
      links = [
        "sh=bash"
        "cc=gcc"
        "awk=gawk"
        "lex=flex"
        "yacc=bison"
        "pkg-config=pkgconf"
      ];
    };

  plainNames = [
    "bash"
    "bzip2"
    "coreutils"
    "diffutils"
    "findutils"
    "gawk"
    "grep"
    "gzip"
    "patch"
    "sed"
    "tar"
    "xz-utils"
  ];
  ccNames = plainNames ++ [
    "binutils"
    "gcc"
    "libc6-dev"
    "linux-libc-dev"
    "make"
  ];
  plainTree = tree plainNames;

  # The names of Debian packages that `inputs` put into a build's tree; other inputs come onto its PATH.
  debNames = lib.concatMap (input: input.debNames or [ ]);

  # Where what is linked with `buildInputs` finds them.
  libraryPath =
    buildInputs:
    let
      names = closureOf (
        [
          "libc6"
          "libgcc-s1"
          "libstdc++6"
        ]
        ++ debNames buildInputs
      );
    in
    lib.concatMapStringsSep ":" (unit: "${unit}/lib/x86_64-linux-gnu:${unit}/lib") (
      lib.unique (map (name: self.debianPackages.${name}) names)
    );

  # `treeOf` gives a build's tree, `onPath` those of its inputs that come onto its PATH from the store.
  makeStdenv =
    { treeOf, onPath }:
    {
      inherit system;
      shell = "${self.bash}/bin/bash";
      hostPlatform = platform;
      buildPlatform = platform;
      targetPlatform = platform;
      isLinux = true;
      mkDerivation =
        attributes:
        let
          finalAttributes = if lib.isFunction attributes then lib.fix attributes else attributes;
        in
        mkDerivation { inherit treeOf onPath; } finalAttributes;
    };

  mkDerivation =
    { treeOf, onPath }@place:
    attributes:
    let
      inputs =
        attributes.nativeBuildInputs or [ ]
        ++ attributes.buildInputs or [ ]
        ++ attributes.nativeCheckInputs or [ ];
      passthru = attributes.passthru or { };
      fixes = !(attributes ? buildCommand) && toString (attributes.dontFixup or "") == "";
      drv = derivation (
        removeAttrs attributes [
          "passthru"
          "meta"
          "nativeBuildInputs"
          "buildInputs"
          "nativeCheckInputs"
          "strictDeps"
          "enableParallelBuilding"
          "preferLocalBuild"
          "allowSubstitutes"
          "env"
        ]
        // attributes.env or { }
        // {
          name = attributes.name or "${attributes.pname}-${attributes.version}";
          inherit system;
          builder = "${bootstrapBusybox}/bin/busybox";
          args = [
            "sh"
            ./enter.sh
            (treeOf inputs)
            bootstrapBusybox
            ./phases.sh
            (lib.makeBinPath (lib.filter onPath inputs ++ lib.optional fixes self.patchelf))
          ];
        }
        // lib.optionalAttrs fixes {
          libraryPath = libraryPath (attributes.buildInputs or [ ]);
          loader = "${self.debianPackages.libc6}/lib64/ld-linux-x86-64.so.2";
        }
      );
    in
    passthru
    // drv
    // {
      inherit passthru;
      meta = attributes.meta or { };
      overrideAttrs =
        changes:
        mkDerivation place (attributes // (if lib.isFunction changes then changes attributes else changes));
    }
    // lib.optionalAttrs (attributes ? pname) { inherit (attributes) pname version; };

  platform = {
    inherit system;
    isLinux = true;
    isx86_64 = true;
    isAarch64 = false;
    isStatic = false;
    parsed.cpu.name = "x86_64";
    config = "x86_64-unknown-linux-gnu";
    linuxArch = "x86_64";
  };

  runCommandWith =
    {
      name,
      stdenv ? self.stdenvNoCC,
      derivationArgs ? { },
    }:
    buildCommand: stdenv.mkDerivation (derivationArgs // { inherit name buildCommand; });
  runCommand = name: derivationArgs: runCommandWith { inherit name derivationArgs; };

  writeTextFile =
    {
      name,
      text,
      executable ? false,
      destination ? "",
      ...
    }:
    runCommand name
      {
        inherit text destination;
        passAsFile = [ "text" ];
        mode = if executable then "0555" else "0444";
      }
      ''
        target=$out$destination
        mkdir -p "$(dirname "$target")"
        install -m "$mode" "$textPath" "$target"
      '';
in
{
  debianTree = tree;

  stdenvs = {
    plain = makeStdenv {
      treeOf = _: plainTree;
      onPath = lib.isDerivation;
    };
    # A Debian package that is an input is part of the tree, where compilers find headers and libraries too.
    cc = makeStdenv {
      treeOf = inputs: tree (ccNames ++ debNames inputs);
      onPath = input: lib.isDerivation input && !(input.isDebianPackage or false);
    };
  };

  inherit runCommand runCommandWith writeTextFile;
  runCommandLocal = runCommand;
  runCommandCC =
    name: derivationArgs:
    runCommandWith {
      inherit name derivationArgs;
      stdenv = self.stdenv;
    };

  writeText = name: text: writeTextFile { inherit name text; };
  writeScript =
    name: text:
    writeTextFile {
      inherit name text;
      executable = true;
    };
  writeShellScript = name: text: self.writeScript name "#!${self.bash}/bin/bash\n${text}\n";
  writeShellScriptBin =
    name: text:
    writeTextFile {
      inherit name;
      text = "#!${self.bash}/bin/bash\n${text}\n";
      executable = true;
      destination = "/bin/${name}";
    };

  symlinkJoin =
    {
      name,
      paths,
      postBuild ? "",
      ...
    }:
    runCommand name { inherit paths; } ''
      mkdir "$out"
      for path in $paths; do
        cp -rs --no-preserve=mode --no-clobber -- "$path/." "$out/"
      done
      ${postBuild}
    '';

  # store-paths: the closure of rootPaths, a line each; registration: as `nix-store --load-db` reads it.
  closureInfo =
    { rootPaths }:
    derivation {
      name = "closure-info";
      inherit system;
      __structuredAttrs = true;
      exportReferencesGraph.closure = rootPaths;
      builder = "${bootstrapBusybox}/bin/busybox";
      args = [
        "sh"
        ./enter.sh
        plainTree
        bootstrapBusybox
        ./closure-info.sh
        "${self.jq}/bin"
      ];
    };
}
