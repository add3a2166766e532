# The bundle: kernel, root filesystem and guest.json (schema 1) in one directory, which is what `nix build` gives.
{
  lib,
  stdenv,
  stdenvNoCC,
  buildPackages,
  guest,
  tree,
  closure,
  rootfs,
  packageSet,
}:

let
  names = lib.attrNames;

  # What is known before anything is built; the rest is read from the results.
  description = {
    schema = 1;
    inherit (guest)
      name
      hostname
      serviceGroup
      resources
      mountPoints
      variant
      ;
    inherit (stdenv.hostPlatform) system;
    rootfs = {
      type = guest.rootfs;
      file = "rootfs.${guest.rootfs}";
      label = if guest.rootfs == "ext4" then "mvm-root" else null;
      verity = null;
    };
    kernel = {
      version = guest.kernel.version or null;
      bootArgs = lib.concatStringsSep " " (
        [
          "console=ttyS0"
          "loglevel=6"
          "printk.devkmsg=on"
          "reboot=t"
          "panic=-1"
          "root=/dev/vda"
          "rootfstype=${guest.rootfs}"
        ]
        ++ [ (if guest.rootfs == "ext4" then "rw" else "ro") ]
        ++ [ "init=/init" ]
      );
    };
    agent = {
      version = guest.guestAgent.version or null;
      port = 5252;
    };
    services = names guest.services;
    healthChecks = names guest.healthChecks;
    probes = names guest.probes;
    users = map (account: account.name) tree.users.accounts;
    inherit packageSet;
  };
in
stdenvNoCC.mkDerivation {
  name = "guest-${guest.name}";
  __structuredAttrs = true;
  # The closure's paths stand in guest.json as what the image holds, not as something that the bundle needs.
  unsafeDiscardReferences.out = true;
  description = builtins.toJSON description;
  inherit closure rootfs;
  inherit (guest) kernel;
  rootfsFile = description.rootfs.file;
  treePath = "${tree}";
  nativeBuildInputs = [
    buildPackages.gawk
    buildPackages.jq
  ];
  buildCommand = ''
    mkdir "$out"
    for image in vmlinux dev/vmlinux Image; do
      if [ -e "$kernel/$image" ]; then
        cp "$kernel/$image" "$out/vmlinux"
        break
      fi
    done
    if [ ! -e "$out/vmlinux" ]; then
      echo "$kernel holds no vmlinux, dev/vmlinux or Image: give mkGuest a kernel that does" >&2
      exit 1
    fi
    cp --sparse=always "$rootfs" "$out/$rootfsFile"
    # A path of the registration is five lines, path, hash, size, deriver and the number of
    # references, and a line for each of those.
    awk '
      left { left--; next }
      { path = $0; getline; getline; print path, $0; getline; getline; left = $0 }
    ' "$closure/registration" |
      jq --sort-keys --raw-input --null-input --argjson guest "$description" --arg tree "$treePath" \
        --argjson size "$(stat --format=%s "$out/$rootfsFile")" '
          [inputs | split(" ") | {path: .[0], narSize: (.[1] | tonumber)} | select(.path != $tree)] as $closure
          | $guest | .rootfs.sizeBytes = $size | .closure = ($closure | sort_by(.path))
        ' >"$out/guest.json"
  '';
  passthru = {
    inherit rootfs tree;
    inherit (guest) kernel;
    agent = guest.guestAgent;
    inherit (guest) role hypervisor;
  };
  meta.description = "Guest image ${guest.name} for Firecracker microVMs";
}
