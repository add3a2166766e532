# Strings that a careless shell, or Nix, would change, through each way in which text gets into a file. They are data,
# so that Nix's own syntax has no part in it.
{ pkgs }:

let
  inherit (pkgs) lib;
  strings = builtins.fromJSON (builtins.readFile ./strings.json);
  variables = lib.listToAttrs (
    lib.genList (n: lib.nameValuePair "text${toString n}" (builtins.elemAt strings n)) (
      lib.length strings
    )
  );
  each = f: lib.concatStringsSep "\n" (lib.mapAttrsToList f variables);
in
pkgs.runCommand "strings" variables ''
  mkdir -p $out/{writeText,variable,escapeShellArg}
  ${each (name: text: "cp ${pkgs.writeText "text" text} $out/writeText/${name}")}
  ${each (name: _: "printf %s \"\$${name}\" >$out/variable/${name}")}
  ${each (name: text: "printf %s ${lib.escapeShellArg text} >$out/escapeShellArg/${name}")}
''
