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

  checkUser = name: if guest.services ? ${name} then guest.services.${name}.user else guest.serviceGroup;

  services = lib.mapAttrs (name: service: { inherit name; inherit (service) command env user; }) guest.services;

  integrations = lib.mapAttrs (name: check: {
    inherit name;
    health_cmd = check.healthCmd;
    health_interval_secs = check.healthIntervalSecs;
    health_timeout_secs = check.healthTimeoutSecs;
    startup_grace_secs = check.startupGraceSecs;
    checkpoint_cmd = check.checkpointCmd;
    restore_cmd = check.restoreCmd;
    inherit (check) critical;
    user = checkUser name;
  }) guest.healthChecks;

  probes = lib.mapAttrs (name: probe: {
    inherit name;
    inherit (probe) description cmd;
    interval_secs = probe.intervalSecs;
    timeout_secs = probe.timeoutSecs;
    output_format = probe.outputFormat;
    user = checkUser name;
  }) guest.probes;

  certificates = "/etc/ssl/certs/ca-bundle.crt";
  environment = {
    PATH = lib.concatStringsSep ":" (map (package: "${lib.getBin package}/bin") guest.packages ++ [ "/bin" ]);
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
      ${lib.concatMapStrings (name: "::respawn:/usr/lib/mvm/supervise ${name}\n") (lib.attrNames services)}::ctrlaltdel:/bin/reboot
      ::shutdown:/usr/lib/mvm/shutdown
    '';
    "etc/mvm/environment.json" = builtins.toJSON environment;
    "etc/mvm/service-group" = "${guest.serviceGroup}\n";
    "etc/mvm/service-users" = lib.concatMapStrings (name: "${name} ${services.${name}.user}\n") (
      lib.attrNames services
    );
    "etc/mvm/variant" = "prod\n";
    "etc/passwd" = users.passwd;
  }
  // jsonFiles "etc/mvm/services" services
  // jsonFiles "etc/mvm/integrations.d" integrations
  // jsonFiles "etc/mvm/probes.d" probes;

  directories = [
    "data"
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
    "srv"
    "sys"
    "tmp"
    "usr/lib/mvm"
    "var/lib"
    "var/log"
    "var/tmp"
    "work"
  ]
  ++ map (lib.removePrefix "/") guest.mountPoints;

  certificateLinks = [
    "/etc/ssl/certs/ca-certificates.crt"
    "/etc/pki/tls/certs/ca-bundle.crt"
  ];
in
runCommand "guest-${guest.name}-tree"
  {
    files = builtins.toJSON files;
    passAsFile = [ "files" ];
    nativeBuildInputs = [ buildPackages.jq ];
    inherit directories;
    busybox = pkgsStatic.busybox;
    agent = guest.guestAgent;
    init = ./init;
    scripts = [
      ./homes.sh
      ./lib.sh
      ./mount-drives.sh
      ./overlays.sh
      ./shutdown
      ./supervise
    ];
    passthru = { inherit users; };
  }
  (
  ''
    mkdir "$out"
    cd "$out"
    mkdir -p bin usr $directories

    cp "$busybox/bin/busybox" bin/busybox
    for link in "$busybox"/bin/* "$busybox"/sbin/*; do
      [ -e "bin/''${link##*/}" ] || ln -s busybox "bin/''${link##*/}"
    done
    ln -s bin sbin
    ln -s ../bin usr/bin
    ln -s ../bin usr/sbin
    cp "$agent/bin/mvm-guest-agent" bin/mvm-guest-agent
    ln -s mvm-guest-agent bin/mvm-confine

    cp "$init" init
    chmod 555 init
    for script in $scripts; do
      name=$(basename "$script")
      install -m 555 "$script" "usr/lib/mvm/''${name:33}"
    done

    jq -r 'keys_unsorted[]' "$filesPath" | while read -r path; do
      mkdir -p "$(dirname "$path")"
      jq -j --arg path "$path" '.[$path]' "$filesPath" >"$path"
    done
  ''
  + lib.optionalString (guest.cacert != null) (
    ''
      install -D -m 444 ${guest.cacert}/etc/ssl/certs/ca-bundle.crt ".${certificates}"
    ''
    + lib.concatMapStrings (link: ''
      mkdir -p ".${dirOf link}"
      ln -s ${certificates} ".${link}"
    '') certificateLinks
  )
)
