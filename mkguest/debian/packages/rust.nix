# Rust as Debian has it, with the parts of nixpkgs' rustPlatform that this project uses.
{ self, lib }:

let
  inherit (self) debianPackages runCommand fetchCrate;

  # All crates that a Cargo.lock pins, as the directory source that `cargo vendor --versioned-dirs` would make.
  importCargoLock =
    { lockFile }:
    let
      packages = lib.filter (package: package ? checksum) (
        (builtins.fromTOML (builtins.readFile lockFile)).package
      );
      crates = map (
        package:
        fetchCrate {
          inherit (package) name version;
          sha256 = package.checksum;
          lock = lockFile;
        }
      ) packages;
    in
    runCommand "cargo-vendor-dir"
      {
        inherit crates;
        checksums = map (package: package.checksum) packages;
      }
      ''
        mkdir "$out"
        set -- $checksums
        for crate in $crates; do
          tar -xzf "$crate" -C "$out"
          name=$(basename "$crate" .crate)
          printf '{"files":{},"package":"%s"}' "$1" >"$out/''${name:33}/.cargo-checksum.json"
          shift
        done
      '';

  # A program from its crate, with the dependencies that its own Cargo.lock pins (crates/NAME.lock).
  buildCrate =
    {
      name,
      version,
      sha256,
      buildInputs ? [ ],
      patches ? [ ],
      postPatch ? null,
    }:
    let
      lockFile = ./crates + "/${name}.lock";
      vendor = importCargoLock { inherit lockFile; };
    in
    self.stdenv.mkDerivation {
      pname = name;
      inherit version patches;
      ${if postPatch == null then null else "postPatch"} = postPatch;
      src = fetchCrate {
        inherit name version sha256;
        lock = lockFile;
      };
      inherit buildInputs;
      nativeBuildInputs = [
        debianPackages.cargo
        debianPackages.rustc
      ];
      buildPhase = ''
        mkdir .cargo
        printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "%s"\n' ${vendor} \
          >.cargo/config.toml
        CARGO_HOME=$PWD/.cargo RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zcrate-attr=feature(let_chains)" cargo build --release --frozen --bins --ignore-rust-version
      '';
      installPhase = ''
        mkdir -p "$out/bin"
        find target/release -maxdepth 1 -type f -perm -u+x -exec install -t "$out/bin" {} +
      '';
      meta.mainProgram = name;
    };
in
{
  vhost-device-vsock = buildCrate {
    name = "vhost-device-vsock";
    version = "0.3.0";
    sha256 = "52ce95d81af89ad693d067c650e42df0f217addfbc96cc4820f7c62eb4a28b13";
    buildInputs = [ debianPackages.libcap-ng-dev ];
    # One connection in the moment in which a guest's driver starts would end the device for good.
    patches = [ ./crates/vhost-device-vsock.patch ];
  };
  deadnix = buildCrate {
    name = "deadnix";
    version = "1.3.1";
    sha256 = "d47a1ef32ad72b7940ba672d8082603384e0d383ba47541d86262e1c1229af09";
  };
  nixfmt-rs = buildCrate {
    name = "nixfmt_rs";
    version = "0.5.3";
    sha256 = "a79a3d2c5fb02436a3bbc5ef251bfc6a06cd631e1f5aea594f0dad83c95e2a65";
    # What it uses of the standard library has become stable after Debian's compiler.
    postPatch = "sed -i '1i #![feature(const_vec_string_slice, integer_sign_cast)]' src/lib.rs src/main.rs";
  };
  rustPlatform = {
    inherit importCargoLock;
    # The source of the standard library, and the crates that it depends on.
    rustLibSrc = self.runCommandCC "rust-lib-src" { deb = self.debs.rust-src; } ''
      mkdir source
      ar p "$deb" data.tar.xz | xz -dc | tar -x -C source --wildcards './usr/src/rustc-*/library'
      mv source/usr/src/rustc-*/library "$out"
    '';
    rustLibVendor = importCargoLock { lockFile = ./std-Cargo.lock; };
  };
  inherit (debianPackages) cargo rustc rustfmt;
  clippy = debianPackages.rust-clippy;
}
