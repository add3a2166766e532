# Mozilla's certificate authorities as one file, which Debian's maintainer script would write.
{ runCommand, debianPackages }:

let
  inherit (debianPackages) ca-certificates;
in
runCommand "cacert-${ca-certificates.version}" { } ''
  mkdir -p "$out/etc/ssl/certs"
  LC_ALL=C
  cat ${ca-certificates}/share/ca-certificates/mozilla/*.crt >"$out/etc/ssl/certs/ca-bundle.crt"
''
