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
  matching = what: pattern: leaf "${what} (${pattern})" (value: isString value && match pattern value != null);
  oneOf =
    values: leaf "one of ${lib.concatMapStringsSep ", " builtins.toJSON values}" (value: lib.elem value values);
  package = leaf "a package" lib.isDerivation;
  nullOr = type: {
    expected = "${type.expected}, or null";
    check = value: value == null || type.check value;
    fill = path: value: if value == null then null else type.fill path value;
  };
  holding = program: leaf "a package that holds ${program}" (value: lib.isDerivation value || isPath value);

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
      lib.genList (index: use "${path}[${toString index}]" type (lib.elemAt values index)) (lib.length values);
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
          use "${path}.${name}" type value
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
  absolutePath = leaf "an absolute path without `.` and `..`" (
    value:
    isString value
    && match "(/[A-Za-z0-9_@%+=:,-][A-Za-z0-9._@%+=:,-]*)+" value != null
  );
  userName = leaf "a user name that is not root (${identifier.expected})" (
    value: identifier.check value && value != "root"
  );

  arguments = {
    name = required hostLabel;
    packages = field (listOf package) [ ];
    services = field (attrsOf identifier (record {
      command = required command;
      env = field (attrsOf variableName text) { };
      user = field (nullOr userName) null;
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
    hostname = field (nullOr hostLabel) null;
    serviceGroup = field userName "mvm";
    rootfs = field (oneOf [
      "ext4"
      "squashfs"
    ]) "ext4";
    mountPoints = field (listOf absolutePath) [ ];
    resources = field (record {
      vcpus = field positive 1;
      memMib = field positive 256;
      dataMib = field natural 0;
    }) { vcpus = 1; memMib = 256; dataMib = 0; };
    cacert = field (nullOr package) defaults.cacert;
    kernel = field (holding "vmlinux") defaults.kernel;
    guestAgent = field (holding "bin/mvm-guest-agent") defaults.guestAgent;
    freeSpaceMiB = field natural 64;
    role = field text "tenant";
    hypervisor = field text "firecracker";
  };

  filled = use "" (record arguments);
in
given:
if !isAttrs given then
  fail "the argument" "expected an attribute set, got ${shown given}"
else
  let
    guest = filled given;
  in
  guest
  // {
    hostname = if guest.hostname == null then guest.name else guest.hostname;
    services = lib.mapAttrs (
      name: service:
      service // { user = if service.user == null then "svc-${name}" else service.user; }
    ) guest.services;
  }
