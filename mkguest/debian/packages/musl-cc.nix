# The compiler for static programs, under the name that nixpkgs' cross compilers have.
{ writeShellScriptBin }:

let
  targetPrefix = "x86_64-unknown-linux-musl-";
in
writeShellScriptBin "${targetPrefix}cc" ''exec musl-gcc "$@"''
// {
  inherit targetPrefix;
  debNames = [ "musl-tools" ];
}
