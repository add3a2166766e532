# mke2fs opens libarchive, which reads its tar input, only while it runs: Debian merely recommends it.
{
  runCommand,
  debianPackages,
  patchelf,
}:

let
  inherit (debianPackages) e2fsprogs libarchive13t64;
in
runCommand "e2fsprogs-${e2fsprogs.version}"
  {
    nativeBuildInputs = [ patchelf ];
    pname = "e2fsprogs";
    inherit (e2fsprogs) version;
  }
  ''
    mkdir "$out"
    cp -rs --no-preserve=mode ${e2fsprogs}/. "$out/"
    for program in mke2fs mkfs.ext2 mkfs.ext3 mkfs.ext4; do
      rm "$out/bin/$program"
    done
    cp ${e2fsprogs}/bin/mke2fs "$out/bin/mke2fs"
    chmod u+w "$out/bin/mke2fs"
    patchelf --force-rpath --set-rpath \
      "$(patchelf --print-rpath "$out/bin/mke2fs"):${libarchive13t64}/lib/x86_64-linux-gnu" "$out/bin/mke2fs"
    for name in ext2 ext3 ext4; do
      ln -s mke2fs "$out/bin/mkfs.$name"
    done
  ''
