# The closure that Nix exports to .attrs.json, in the files that nixpkgs' closureInfo gives. Needs jq.
set -o pipefail
# shellcheck source=/dev/null
. /build/.attrs.sh
out=${outputs[out]}
mkdir "$out"
jq -r '.closure | map(.path) | sort | .[]' /build/.attrs.json >"$out/store-paths"
jq -r '.closure | sort_by(.path) | map([.path, .narHash, .narSize, "", (.references | length)] + .references)
  | add | map("\(.)\n") | add' /build/.attrs.json | head -n -1 >"$out/registration"
jq '[.closure[].narSize] | add' /build/.attrs.json >"$out/total-nar-size"
