# The guest's own programs as one small static binary: the agent, and mvm-confine and mvm-grow as links to it. The
# standard library is built along with them, without the formatting of panics, which is half of what a small Rust program
# weighs.
{
  lib,
  stdenv,
  pkgsStatic,
  buildPackages,
  # "dev" for an agent that also runs commands of the host
  variant ? "prod",
}:

assert lib.elem variant [
  "prod"
  "dev"
];

let
  inherit (buildPackages) rustPlatform rustc cargo;
  manifest = builtins.fromTOML (builtins.readFile ./Cargo.toml);

  target = "${stdenv.hostPlatform.parsed.cpu.name}-unknown-linux-musl";
  linker = pkgsStatic.stdenv.cc;
  targetVariable = lib.replaceStrings [ "-" ] [ "_" ] (lib.toUpper target);

  crates = rustPlatform.importCargoLock { lockFile = ./Cargo.lock; };

  # The crates of the standard library: nixpkgs has them only in the compiler's source.
  libraryCrates =
    rustPlatform.rustLibVendor or (buildPackages.runCommand "rust-lib-vendor" { } ''
      mkdir "$out"
      tar -xf ${rustc.unwrapped.src} -C "$out" --strip-components=2 --wildcards '*/vendor'
    '');

  common = {
    pname = manifest.package.name + lib.optionalString (variant == "dev") "-dev";
    inherit (manifest.package) version;
    src = lib.cleanSourceWith {
      name = "source";
      src = ./.;
      filter =
        path: type:
        let
          name = baseNameOf path;
        in
        if type == "directory" then
          name != "target"
        else
          name == "Cargo.toml" || name == "Cargo.lock" || lib.hasSuffix ".rs" name;
    };
    nativeBuildInputs = [
      cargo
      rustc
    ];
    strictDeps = true;
    configurePhase = ''
      mkdir ../vendor
      for crates in ${crates} ${libraryCrates}; do
        for crate in "$crates"/*; do
          [ -e "../vendor/''${crate##*/}" ] || ln -s "$crate" ../vendor/
        done
      done
      mkdir -p .cargo
      printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "%s"\n' \
        "$(realpath ../vendor)" >.cargo/config.toml
      export CARGO_HOME=$PWD/.cargo RUSTC_BOOTSTRAP=1
      export __CARGO_TESTS_ONLY_SRC_ROOT=${rustPlatform.rustLibSrc}
    '';
  };
in
stdenv.mkDerivation (
  common
  // {
    nativeBuildInputs = common.nativeBuildInputs ++ [ linker ];
    buildPhase = ''
      # Unwinding is left out, but std's build names the library.
      mkdir empty
      ar rcs empty/libunwind.a
      export CARGO_TARGET_${targetVariable}_LINKER=${linker}/bin/${linker.targetPrefix}cc
      export RUSTFLAGS="-C link-self-contained=no -C relocation-model=static -C target-feature=+crt-static \
        -L $PWD/empty --remap-path-prefix=$PWD=/build --remap-path-prefix=${rustPlatform.rustLibSrc}=/rust"
      cargo build --release --frozen --target ${target} ${
        lib.optionalString (variant == "dev") "--features exec"
      } \
        -Z build-std=std,panic_abort -Z build-std-features=panic_immediate_abort,optimize_for_size
    '';
    installPhase = ''
      ${lib.optionalString (variant == "prod") ''
        if grep -q ExecResult "target/${target}/release/mvm-guest-agent"; then
          echo "the production agent holds code of Exec" >&2
          exit 1
        fi
      ''}
      install -D "target/${target}/release/mvm-guest-agent" "$out/bin/mvm-guest-agent"
      for name in mvm-confine mvm-grow; do
        ln -s mvm-guest-agent "$out/bin/$name"
      done
    '';
    dontFixup = true;
    allowedReferences = [ "out" ];
    passthru.tests = stdenv.mkDerivation (
      common
      // {
        pname = "${common.pname}-tests";
        buildPhase = ''
          export HOME=$PWD
          cargo test --frozen --features testing 2>&1 | tee test.log
          cargo test --frozen --all-features 2>&1 | tee -a test.log
        '';
        installPhase = "cp test.log $out";
        dontFixup = true;
      }
    );
    meta = {
      description = manifest.package.description;
      mainProgram = "mvm-guest-agent";
    };
  }
)
