# The files of a guest's root filesystem but for its /nix/store: busybox and its links, the agent, the scripts that boot
# and supervise, and what they read. Data reaches the scripts and the agent as JSON, never as program text.
{
  lib,
  runCommand,
  pkgsStatic,
  buildPackages,
  guest,
}:

let
  users = import ./users.nix { inherit lib guest; };

  # A check or probe is started as the service of its name is.
  confinement = name: {
    user = guest.services.${name}.user or guest.serviceGroup;
    seccomp = guest.services.${name}.seccomp or "standard";
  };

  services = lib.mapAttrs (name: service: {
    inherit name;
    inherit (service)
      command
      env
      user
      seccomp
      ;
    pre_start = service.preStart;
    log_file = service.logFile;
  }) guest.services;

  integrations = lib.mapAttrs (
    name: check:
    confinement name
    // {
      inherit name;
      health_cmd = check.healthCmd;
      health_interval_secs = check.healthIntervalSecs;
      health_timeout_secs = check.healthTimeoutSecs;
      startup_grace_secs = check.startupGraceSecs;
      checkpoint_cmd = check.checkpointCmd;
      restore_cmd = check.restoreCmd;
      inherit (check) critical;
    }
  ) guest.healthChecks;

  probes = lib.mapAttrs (
    name: probe:
    confinement name
    // {
      inherit name;
      inherit (probe) description cmd;
      interval_secs = probe.intervalSecs;
      timeout_secs = probe.timeoutSecs;
      output_format = probe.outputFormat;
    }
  ) guest.probes;

  certificates = "/etc/ssl/certs/ca-bundle.crt";
  environment = {
    PATH = lib.concatStringsSep ":" (
      map (package: "${lib.getBin package}/bin") guest.packages ++ [ "/bin" ]
    );
  }
  // lib.optionalAttrs (guest.cacert != null) { SSL_CERT_FILE = certificates; };

  jsonFiles =
    folder: set:
    lib.mapAttrs' (name: value: lib.nameValuePair "${folder}/${name}.json" (builtins.toJSON value)) set;

  # Path to content.
  files = {
    "etc/group" = users.group;
    "etc/hostname" = "${guest.hostname}\n";
    "etc/hosts" = "127.0.0.1 localhost ${guest.hostname}\n::1 localhost ${guest.hostname}\n";
    "etc/inittab" = ''
      ::respawn:/bin/mvm-guest-agent
      ${
        lib.concatMapStrings (name: "::respawn:/usr/lib/mvm/supervise ${name}\n") (lib.attrNames services)
      }::ctrlaltdel:/bin/reboot
      ::shutdown:/usr/lib/mvm/shutdown
    '';
    "etc/mvm/environment.json" = builtins.toJSON environment;
    "etc/mvm/mount-points" = lib.concatMapStrings (path: "${path}\n") mountPoints;
    "etc/mvm/service-group" = "${guest.serviceGroup}\n";
    "etc/mvm/service-users" = lib.concatMapStrings (name: "${name} ${services.${name}.user}\n") (
      lib.attrNames services
    );
    "etc/mvm/variant" = "${guest.variant}\n";
    "etc/passwd" = users.passwd;
  }
  // jsonFiles "etc/mvm/services" services
  // jsonFiles "etc/mvm/integrations.d" integrations
  // jsonFiles "etc/mvm/probes.d" probes;

  # Where the data drive may be bound, beside places below /var/lib and /home.
  mountPoints = lib.unique (
    [
      "/data"
      "/srv"
      "/work"
    ]
    ++ guest.mountPoints
  );

  directories = [
    "dev"
    "etc/mvm/integrations.d"
    "etc/mvm/probes.d"
    "etc/mvm/services"
    "home"
    "mnt/config"
    "mnt/data"
    "mnt/secrets"
    "nix/store"
    "proc"
    "root"
    "run"
    "sys"
    "tmp"
    "usr/lib/mvm"
    "var/lib"
    "var/log"
    "var/tmp"
  ]
  ++ map (lib.removePrefix "/") mountPoints;

  # What the caller adds, over whatever stands there.
  extraFiles = map (
    {
      path,
      content,
      source,
      ...
    }:
    let
      relative = lib.removePrefix "/" path;
      clash = lib.filter (
        directory: directory == relative || lib.hasPrefix "${relative}/" directory
      ) directories;
    in
    if clash != [ ] then
      throw "mkGuest: extraFiles.${builtins.toJSON path}: /${lib.head clash} is a directory in every guest; choose another path"
    else
      {
        path = relative;
        inherit content source;
      }
  ) guest.extraFiles;

  certificateLinks = [
    "/etc/ssl/certs/ca-certificates.crt"
    "/etc/pki/tls/certs/ca-bundle.crt"
  ];
in
runCommand "guest-${guest.name}-tree"
  {
    files = builtins.toJSON (
      lib.mapAttrsToList (path: content: { inherit path content; }) files
      ++ lib.optional (guest.cacert != null) {
        path = lib.removePrefix "/" certificates;
        source = "${guest.cacert}${certificates}";
      }
      ++ extraFiles
    );
    passAsFile = [
      "files"
      "directories"
    ];
    nativeBuildInputs = [ buildPackages.jq ];
    directories = lib.concatMapStrings (directory: "${directory}\n") directories;
    busybox = pkgsStatic.busybox;
    agent = guest.guestAgent;
    init = ./init;
    scripts = [
      ./dhcp
      ./fstab
      ./fstab.overlays
      ./lib.sh
      ./mount-drives.sh
      ./network.sh
      ./places.sh
      ./shutdown
      ./supervise
    ];
    inherit certificates;
    certificateLinks = lib.optionals (guest.cacert != null) certificateLinks;
    passthru = { inherit users; };
  }
  ''
    mkdir "$out"
    cd "$out"
    mkdir -p bin usr
    xargs -d '\n' mkdir -p <"$directoriesPath"

    cp "$busybox/bin/busybox" bin/busybox
    for link in "$busybox"/bin/* "$busybox"/sbin/*; do
      [ -e "bin/''${link##*/}" ] || ln -s busybox "bin/''${link##*/}"
    done
    ln -s bin sbin
    ln -s ../bin usr/bin
    ln -s ../bin usr/sbin
    cp "$agent/bin/mvm-guest-agent" bin/mvm-guest-agent
    for name in mvm-confine mvm-grow; do
      ln -s mvm-guest-agent "bin/$name"
    done

    # What the kernel does not put into /dev.
    mkdir -p usr/lib/mvm/dev/pts usr/lib/mvm/dev/shm
    ln -s /proc/self/fd usr/lib/mvm/dev/fd
    for stream in 0=stdin 1=stdout 2=stderr; do
      ln -s "fd/''${stream%=*}" "usr/lib/mvm/dev/''${stream#*=}"
    done

    cp "$init" init
    chmod 555 init
    for script in $scripts; do
      name=$(basename "$script")
      install -m 555 "$script" "usr/lib/mvm/''${name:33}"
    done

    for link in ''${certificateLinks}; do
      mkdir -p ".''${link%/*}"
      ln -s "$certificates" ".$link"
    done
    jq -r '.[] | "\(.path)\t\(.source // "")"' "$filesPath" | while IFS=$'\t' read -r path source; do
      mkdir -p -- "$(dirname "./$path")"
      rm -f -- "./$path"
      if [ -n "$source" ]; then
        cp -- "$source" "./$path"
      else
        jq -j --arg path "$path" 'map(select(.path == $path)) | last | .content' "$filesPath" >"./$path"
      fi
    done
  ''
