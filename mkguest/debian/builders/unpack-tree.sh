# Unpacks the packages in $debs into one tree as dpkg would, without maintainer scripts. Run by the bootstrap busybox,
# whose shell finds its own applets. `links` stand for what update-alternatives would make.
set -eu

mkdir -p "$out"
for deb in $debs; do
  dpkg-deb -x "$deb" "$out"
done
for merged in bin lib lib64 sbin; do
  [ -L "$out/$merged" ] || ln -s "usr/$merged" "$out/$merged"
done
for link in $links; do
  target=${link#*=}
  [ ! -e "$out/usr/bin/$target" ] || [ -e "$out/usr/bin/${link%%=*}" ] || ln -s "$target" "$out/usr/bin/${link%%=*}"
done
rm -rf "$out/usr/share/man" "$out/usr/share/locale" "$out/usr/share/info" "$out/usr/share/lintian"
# Where enter.sh mounts what a build sees of its sandbox.
mkdir -p "$out/build" "$out/dev" "$out/nix" "$out/proc" "$out/tmp" "$out/etc"
