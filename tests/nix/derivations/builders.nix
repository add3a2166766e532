# The functions that make derivations, each used once as guests' flakes use them. What they must give is checked where
# it is made, or by the tests that read it.
{
  pkgs,
  nixpkgs,
  system,
}:

let
  inherit (pkgs) lib;
  overlaid = import nixpkgs {
    inherit system;
    config = { };
    overlays = [
      (final: prev: { greeting = prev.writeText "greeting" "hello from ${final.addressee}\n"; })
      (_: _: { addressee = "an overlay"; })
    ];
  };
  plain = import nixpkgs {
    inherit system;
    config = { };
    overlays = [ ];
  };
in
{
  runCommand =
    pkgs.runCommand "made"
      {
        nativeBuildInputs = [ pkgs.jq ];
        given = "a value";
        list = [
          "a"
          "b"
        ];
      }
      ''
        jq --null-input --arg given "$given" --arg list "$list" '{$given, $list}' >"$out"
      '';
  runCommandLocal = pkgs.runCommandLocal "made" { } "echo here >$out";
  writeText = pkgs.writeText "made" "text\n";
  writeTextFile = pkgs.writeTextFile {
    name = "made";
    text = "#!${pkgs.bash}/bin/bash\necho text\n";
    executable = true;
    destination = "/share/made/it";
  };
  writeShellScript = pkgs.writeShellScript "made" "echo \"$((6 * 7))\"";
  writeShellScriptBin = pkgs.writeShellScriptBin "made" "echo \"$((6 * 7))\"";
  symlinkJoin = pkgs.symlinkJoin {
    name = "made";
    paths = [
      (pkgs.writeShellScriptBin "one" "echo one")
      (pkgs.writeShellScriptBin "two" "echo two")
      (pkgs.writeShellScriptBin "one" "echo another one")
    ];
    postBuild = "echo built >$out/after";
  };
  closureInfo = pkgs.closureInfo { rootPaths = [ pkgs.jq ]; };

  stdenv = pkgs.stdenv.mkDerivation {
    pname = "greet";
    version = "1.0";
    src = ./greet;
    buildInputs = [ pkgs.debianPackages.libcap-ng-dev or pkgs.libcap_ng ];
    postInstall = "echo after >$out/after";
  };
  stdenvNoCC = pkgs.stdenvNoCC.mkDerivation (finalAttrs: {
    name = "made-${finalAttrs.version}";
    version = "2.0";
    src = ./greet;
    dontBuild = true;
    installPhase = ''
      runHook preInstall
      ! type -P cc
      mkdir $out
      cp greet.c $out/
      runHook postInstall
    '';
  });
  overrideAttrs = (pkgs.writeText "made" "").overrideAttrs (_: {
    text = "overridden";
  });
  imported = plain.writeText "made" "imported\n";
  overlay = overlaid.greeting;

  # A program of the stdenv is like one of the set: it runs in a sandbox that holds nothing but its closure.
  ran = derivation {
    name = "ran";
    inherit system;
    builder = "${pkgs.bash}/bin/bash";
    args = [
      "-c"
      "${
        lib.getExe' (pkgs.stdenv.mkDerivation {
          name = "greet";
          src = ./greet;
          buildInputs = [ pkgs.debianPackages.libcap-ng-dev or pkgs.libcap_ng ];
        }) "greet"
      } >$out"
    ];
  };
}
