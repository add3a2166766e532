# The phases of nixpkgs' stdenv, as far as derivations here and in users' flakes need them: unpack, patch, configure,
# build, check, install, fixup; each may be replaced by a variable of its name and has pre and post hooks.
set -o pipefail

cd /build
if [ -e /build/.attrs.sh ]; then
  # shellcheck source=/dev/null
  . /build/.attrs.sh
  for output in "${!outputs[@]}"; do
    declare -x "$output=${outputs[$output]}"
  done
fi

runHook() {
  local hook=$1
  if declare -F "$hook" >/dev/null; then
    "$hook"
  elif [ -n "${!hook:-}" ]; then
    eval "${!hook}"
  fi
}

unpackFile() {
  if [ -d "$1" ]; then
    cp -r --no-preserve=ownership -- "$1" "$(stripHash "$1")"
    chmod -R u+w -- "$(stripHash "$1")"
  else
    tar -xf "$1"
  fi
}

stripHash() {
  local name
  name=$(basename "$1")
  [[ $name =~ ^[0-9a-z]{32}- ]] && name=${name:33}
  printf '%s\n' "$name"
}

unpackDefault() {
  local before file folders
  [ -n "${src:-}${srcs:-}" ] || return 0
  before=$(ls -A)
  for file in ${srcs:-$src}; do
    unpackFile "$file"
  done
  if [ -z "${sourceRoot:-}" ]; then
    # shellcheck disable=SC2012 # sources have no newline in their names
    mapfile -t folders < <(comm -13 <(sort <<<"$before") <(ls -A | sort))
    if [ ${#folders[@]} -ne 1 ]; then
      echo "the source unpacks to ${#folders[@]} entries: set sourceRoot" >&2
      exit 1
    fi
    sourceRoot=${folders[0]}
  fi
  cd -- "$sourceRoot"
}

patchDefault() {
  local file
  for file in ${patches:-}; do
    patch -p1 <"$file"
  done
}

configureDefault() {
  if [ -x ./configure ]; then
    # shellcheck disable=SC2086 # a list of flags, as in nixpkgs
    ./configure --prefix="$out" ${configureFlags:-}
  fi
}

buildDefault() {
  if [ -e Makefile ] || [ -e makefile ]; then
    # shellcheck disable=SC2086
    make -j"$NIX_BUILD_CORES" ${makeFlags:-} ${buildFlags:-}
  fi
}

checkDefault() {
  # shellcheck disable=SC2086
  make check ${makeFlags:-} ${checkFlags:-}
}

installDefault() {
  # shellcheck disable=SC2086
  make install PREFIX="$out" prefix="$out" ${makeFlags:-} ${installFlags:-}
}

# What Debian's compiler makes looks for Debian's own paths: lead it to those of the store. `loader` and `libraryPath`
# are builders/default.nix's.
fixupDefault() {
  local file name folder old search
  while IFS= read -r -d '' file; do
    old=$(patchelf --print-rpath "$file" 2>/dev/null) || continue
    search=
    for folder in ${old//:/ }; do
      [[ $folder != /nix/store/* && $folder != \$ORIGIN* ]] || search+=:$folder
    done
    for name in $(patchelf --print-needed "$file"); do
      for folder in "$out/lib" ${libraryPath//:/ }; do
        if [ -e "$folder/$name" ]; then
          [[ $search: == *:$folder:* ]] || search+=:$folder
          break
        fi
      done
    done
    patchelf --force-rpath --set-rpath "${search#:}" "$file"
    if [ "$(patchelf --print-interpreter "$file" 2>/dev/null)" = /lib64/ld-linux-x86-64.so.2 ]; then
      patchelf --set-interpreter "$loader" "$file"
    fi
  done < <(find "$out" -type f \( -perm -u+x -o -name '*.so*' \) -print0)
}

runPhase() {
  local phase=$1 default=$2
  if [ -n "${!phase:-}" ]; then
    eval "${!phase}"
  else
    local name=${phase%Phase}
    runHook "pre${name^}"
    "$default"
    runHook "post${name^}"
  fi
}

if [ -n "${buildCommandPath:-}" ]; then
  # shellcheck source=/dev/null
  . "$buildCommandPath"
elif [ -n "${buildCommand:-}" ]; then
  eval "$buildCommand"
else
  [ -n "${dontUnpack:-}" ] || runPhase unpackPhase unpackDefault
  [ -n "${dontPatch:-}" ] || runPhase patchPhase patchDefault
  [ -n "${dontConfigure:-}" ] || runPhase configurePhase configureDefault
  [ -n "${dontBuild:-}" ] || runPhase buildPhase buildDefault
  [ -z "${doCheck:-}" ] || runPhase checkPhase checkDefault
  [ -n "${dontInstall:-}" ] || runPhase installPhase installDefault
  [ -n "${dontFixup:-}" ] || runPhase fixupPhase fixupDefault
fi
