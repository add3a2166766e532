# mkGuest's arguments: each one's default, check and error, in one place. The result is the same attribute set with
# every default filled in and every text, path and derivation that names a command turned into its command line.
#
# A type is { expected; check; fill }: `check` says whether a value fits, `fill` (path, value) gives the value to use or
# stops the evaluation at a place further inside.
{ lib, defaults }:

let
  inherit (builtins)
    isAttrs
    isBool
    isInt
    isList
    isPath
    isString
    match
    ;

  fail = path: problem: throw "mkGuest: ${path}: ${problem}";

  # A name as it would be written in a path of attributes.
  attribute =
    name: if match "[a-zA-Z_][a-zA-Z0-9_'-]*" name == null then builtins.toJSON name else name;

  shown =
    value:
    if isAttrs value then
      (if lib.isDerivation value then "a derivation" else "an attribute set")
    else if isList value then
      "a list"
    else if builtins.isFunction value then
      "a function"
    else
      builtins.toJSON (if isString value then builtins.unsafeDiscardStringContext value else value);

  nearest =
    known: name:
    let
      ranked = lib.sort (a: b: a.distance < b.distance) (
        map (candidate: {
          inherit candidate;
          distance = lib.levenshtein name candidate;
        }) known
      );
      best = lib.head ranked;
    in
    if known != [ ] && best.distance <= 3 then
      "did you mean `${best.candidate}`?"
    else
      "known are ${lib.concatStringsSep ", " known}";

  # Types

  leaf = expected: check: {
    inherit expected check;
    fill = _: value: value;
  };
  text = leaf "a string" isString;
  boolean = leaf "true or false" isBool;
  positive = leaf "a whole number above 0" (value: isInt value && value > 0);
  natural = leaf "a whole number, 0 or above" (value: isInt value && value >= 0);
  matching =
    what: pattern: leaf "${what} (${pattern})" (value: isString value && match pattern value != null);
  oneOf =
    values:
    leaf "one of ${lib.concatMapStringsSep ", " builtins.toJSON values}" (value: lib.elem value values);
  package = leaf "a package" lib.isDerivation;
  source = {
    expected = "a file: a path or a derivation";
    check = value: isPath value || lib.isDerivation value || (isString value && lib.isStorePath value);
    fill = _: value: "${value}";
  };
  nullOr = type: {
    expected = "${type.expected}, or null";
    check = value: value == null || type.check value;
    fill = path: value: if value == null then null else type.fill path value;
  };
  holding =
    program: leaf "a package that holds ${program}" (value: lib.isDerivation value || isPath value);

  command = {
    expected = "a command line: a string, a path or a derivation";
    check = value: isString value || isPath value || lib.isDerivation value;
    fill =
      _: value:
      if lib.isDerivation value && value ? meta.mainProgram then lib.getExe value else "${value}";
  };

  listOf = type: {
    expected = "a list, each ${type.expected}";
    check = isList;
    fill =
      path: values:
      lib.genList (index: use "${path}[${toString index}]" type (lib.elemAt values index)) (
        lib.length values
      );
  };

  # An attribute set whose names fit `naming` and whose values are all of one type.
  attrsOf = naming: type: {
    expected = "an attribute set, each ${type.expected}";
    check = value: isAttrs value && !lib.isDerivation value;
    fill =
      path: set:
      lib.mapAttrs (
        name: value:
        if naming.check name then
          use "${path}.${attribute name}" type value
        else
          fail "${path}.${builtins.toJSON name}" "the name must be ${naming.expected}"
      ) set;
  };

  # An attribute set with known names: `fields` gives { type; default? } for each.
  record = fields: {
    expected = "an attribute set of ${lib.concatStringsSep ", " (lib.attrNames fields)}";
    check = value: isAttrs value && !lib.isDerivation value;
    fill =
      path: set:
      let
        inner = name: if path == "" then name else "${path}.${name}";
        unknown = lib.attrNames (removeAttrs set (lib.attrNames fields));
      in
      if unknown != [ ] then
        fail (inner (lib.head unknown)) "unknown argument; ${nearest (lib.attrNames fields) (lib.head unknown)}"
      else
        lib.mapAttrs (
          name: field:
          if set ? ${name} then
            use (inner name) field.type set.${name}
          else
            field.default or (fail (inner name) "is required; expected ${field.type.expected}")
        ) fields;
  };

  use =
    path: type: value:
    if type.check value then
      type.fill path value
    else
      fail path "expected ${type.expected}, got ${shown value}";

  field = type: default: { inherit type default; };
  required = type: { inherit type; };

  # Names

  hostLabel = matching "lower-case letters, digits and inner hyphens, at most 63" "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
  identifier = matching "a lower-case name of at most 31 characters" "[a-z_][a-z0-9_-]{0,30}";
  variableName = matching "the name of an environment variable" "[A-Za-z_][A-Za-z0-9_]*";
  # Paths in the guest. Those that the kernel's command line carries hold no more than that can.
  isAbsolute =
    value:
    isString value
    && lib.hasPrefix "/" value
    && lib.all (part: part != "" && part != "." && part != "..") (lib.tail (lib.splitString "/" value));
  absolutePath = leaf "an absolute path without `.`, `..`, `//` and control characters" (
    value: isAbsolute value && match ".*[[:cntrl:]].*" value == null
  );
  plainPath = leaf "an absolute path of letters, digits, `.`, `_` and `-`, without `.` and `..`" (
    value: isAbsolute value && match "[A-Za-z0-9._/-]+" value != null
  );
  # Each with what to use instead.
  reserved = {
    "/nix" = "a package";
    "/bin" = "packages";
    "/sbin" = "packages";
    "/usr/bin" = "packages";
    "/usr/sbin" = "packages";
    "/usr/lib/mvm" = "the arguments of mkGuest";
    "/etc/mvm" = "the arguments of mkGuest";
    "/etc/passwd" = "`users`";
    "/etc/group" = "`users`";
    "/etc/inittab" = "`services`";
    "/etc/hostname" = "`hostname`";
    "/init" = "`services.<name>.preStart`";
    "/proc" = "a place that is no mount point";
    "/sys" = "a place that is no mount point";
    "/dev" = "a place that is no mount point";
    "/run" = "a place that is no mount point";
    "/tmp" = "a place that is no mount point";
    "/mnt" = "one of the drives";
  };
  within = directory: path: path == directory || lib.hasPrefix "${directory}/" path;
  checkFree =
    argument: path:
    let
      taken = lib.filter (directory: within directory path) (lib.attrNames reserved);
    in
    if taken == [ ] then
      path
    else
      fail "${argument}.${builtins.toJSON path}" "${lib.head taken} is mkGuest's own; use ${reserved.${lib.head taken}} for it";

  userName = leaf "${identifier.expected} that is not root and not mvm-agent" (
    value: identifier.check value && value != "root" && value != "mvm-agent"
  );
  # 65534 is nobody, and -1 means to leave an owner as it is.
  uid = leaf "a whole number from 1 to 65533, or null" (
    value: value == null || (isInt value && value > 0 && value < 65534)
  );

  arguments = {
    name = required hostLabel;
    packages = field (listOf package) [ ];
    services = field (attrsOf identifier (record {
      command = required command;
      preStart = field (nullOr command) null;
      env = field (attrsOf variableName text) { };
      user = field (nullOr userName) null;
      seccomp = field (oneOf [
        "essential"
        "minimal"
        "standard"
        "network"
        "unrestricted"
      ]) "standard";
      logFile = field (nullOr absolutePath) null;
    })) { };
    healthChecks = field (attrsOf identifier (record {
      healthCmd = required command;
      healthIntervalSecs = field positive 30;
      healthTimeoutSecs = field positive 10;
      startupGraceSecs = field natural 0;
      checkpointCmd = field (nullOr command) null;
      restoreCmd = field (nullOr command) null;
      critical = field boolean false;
    })) { };
    probes = field (attrsOf identifier (record {
      cmd = required command;
      description = field text "";
      intervalSecs = field positive 30;
      timeoutSecs = field positive 10;
      outputFormat = field (oneOf [
        "exit_code"
        "json"
      ]) "exit_code";
    })) { };
    users = field (attrsOf userName (record {
      uid = field uid null;
      group = field (nullOr userName) null;
      home = field (nullOr plainPath) null;
    })) { };
    hostname = field (nullOr hostLabel) null;
    serviceGroup = field userName "mvm";
    rootfs = field (nullOr (oneOf [
      "ext4"
      "squashfs"
    ])) null;
    verifiedBoot = field boolean false;
    extraFiles = field (attrsOf absolutePath (record {
      content = field (nullOr text) null;
      source = field (nullOr source) null;
      mode = field (matching "three octal digits, with or without a 0 before them" "0?[0-7]{3}") "0644";
    })) { };
    mountPoints = field (listOf plainPath) [ ];
    resources =
      field
        (record {
          vcpus = field positive 1;
          memMib = field positive 256;
          dataMib = field natural 0;
        })
        {
          vcpus = 1;
          memMib = 256;
          dataMib = 0;
        };
    cacert = field (nullOr package) defaults.cacert;
    kernel = field (holding "vmlinux") defaults.kernel;
    guestAgent = field (nullOr (holding "bin/mvm-guest-agent")) null;
    freeSpaceMiB = field natural 64;
    variant = field (oneOf [
      "prod"
      "dev"
    ]) "prod";
    role = field text "tenant";
    hypervisor = field text "firecracker";
  };

  # What needs more than one argument to be decided or checked.
  settle =
    guest:
    let
      rootfs =
        if guest.rootfs != null then
          guest.rootfs
        else if guest.verifiedBoot then
          "squashfs"
        else
          "ext4";
      extraFile =
        path: file:
        let
          place = "extraFiles.${builtins.toJSON path}";
          below = lib.filter (other: lib.hasPrefix "${path}/" other) (lib.attrNames guest.extraFiles);
        in
        if (file.content == null) == (file.source == null) then
          fail place "expected either `content` or `source`"
        else if below != [ ] then
          fail place "is a file, and ${builtins.toJSON (lib.head below)} would be in it"
        else
          file // { path = checkFree "extraFiles" path; };
    in
    if guest.verifiedBoot && rootfs == "ext4" then
      fail "verifiedBoot" "expected `rootfs = \"squashfs\"`, since a root that is written to cannot be verified"
    else if guest.verifiedBoot then
      fail "verifiedBoot" "is not built by this version; leave it out"
    else
      guest
      // {
        inherit rootfs;
        hostname = if guest.hostname == null then guest.name else guest.hostname;
        guestAgent =
          if guest.guestAgent == null then defaults.guestAgent guest.variant else guest.guestAgent;
        mountPoints = map (checkFree "mountPoints") guest.mountPoints;
        extraFiles = lib.mapAttrsToList extraFile guest.extraFiles;
        services = lib.mapAttrs (
          name: service: service // { user = if service.user == null then "svc-${name}" else service.user; }
        ) guest.services;
      };

  filled = use "" (record arguments);
in
given:
if !isAttrs given then
  fail "the argument" "expected an attribute set, got ${shown given}"
else
  settle (filled given)
