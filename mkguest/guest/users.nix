# The accounts of a guest: root, the service group, the agent's listener, those of `users`, and a user for each service
# that names one which `users` does not define. Gives the texts of /etc/passwd and /etc/group, and the accounts.
{ lib, guest }:

let
  fail = path: problem: throw "mkGuest: ${path}: ${problem}";

  # A number that depends on the name alone, so that a new user never gets the files of another.
  numberOf =
    name:
    let
      digits = lib.listToAttrs (
        lib.genList (number: lib.nameValuePair (lib.substring number 1 "0123456789abcdef") number) 16
      );
    in
    1100
    + lib.foldl' (remainder: character: lib.mod (remainder * 16 + digits.${character}) 8000) 0 (
      lib.stringToCharacters (builtins.hashString "sha256" name)
    );

  agent = "mvm-agent";
  own = {
    root = 0;
    ${guest.serviceGroup} = 900;
    ${agent} = 901;
  };

  # The users of services, each with the place that names it, and those of `users`.
  named =
    lib.mapAttrs' (name: service: lib.nameValuePair service.user { place = "services.${name}.user"; }) (
      lib.filterAttrs (_: service: service.user != guest.serviceGroup) guest.services
    )
    // lib.mapAttrs (name: user: user // { place = "users.${name}"; }) guest.users;

  account =
    name:
    {
      place,
      uid ? null,
      group ? null,
      home ? null,
    }:
    if name == guest.serviceGroup then
      fail place "the user ${name} is the service group's; choose another name"
    else
      {
        inherit name place;
        uid = if uid == null then numberOf name else uid;
        group = if group == null then name else group;
        home = if home == null then "/home/${name}" else home;
      };
  accounts = lib.mapAttrsToList account named;

  # Every group by its name: those of the fixed accounts, of each user, and what `users.<n>.group` adds.
  groupNumbers =
    lib.genAttrs (map ({ group, ... }: group) accounts) numberOf
    // lib.listToAttrs (map ({ name, uid, ... }: lib.nameValuePair name uid) accounts)
    // own;
  usedGroups = lib.filterAttrs (
    name: _: own ? ${name} || lib.any ({ group, ... }: group == name) accounts
  ) groupNumbers;

  # The first two of a list of { name, number, place } that have one number.
  clash =
    what: entries:
    let
      twins = entry: lib.filter (other: other.number == entry.number && other.name != entry.name) entries;
      found = lib.filter (entry: twins entry != [ ] && entry.place != null) entries;
      first = lib.head found;
    in
    if found == [ ] then
      null
    else
      fail first.place "${first.name} gets the ${what} ${toString first.number} of ${(lib.head (twins first)).name}; set users.${first.name}.uid to a free one";

  clashes = [
    (clash "uid" (
      map (
        {
          name,
          uid,
          place,
          ...
        }:
        {
          inherit name place;
          number = uid;
        }
      ) accounts
      ++ lib.mapAttrsToList (name: number: {
        inherit name number;
        place = null;
      }) own
    ))
    (clash "gid" (
      lib.mapAttrsToList (name: number: {
        inherit name number;
        place = (lib.findFirst ({ group, ... }: group == name) { place = null; } accounts).place;
      }) usedGroups
    ))
  ];

  passwdLine =
    {
      name,
      uid,
      gid,
      home,
      shell ? "/bin/false",
    }:
    "${name}:x:${toString uid}:${toString gid}::${home}:${shell}\n";
  passwd = [
    {
      name = "root";
      uid = 0;
      gid = 0;
      home = "/root";
      shell = "/bin/sh";
    }
    {
      name = guest.serviceGroup;
      uid = own.${guest.serviceGroup};
      gid = own.${guest.serviceGroup};
      home = "/";
    }
    {
      name = agent;
      uid = own.${agent};
      gid = own.${agent};
      home = "/";
    }
  ]
  ++ map (
    {
      name,
      uid,
      group,
      home,
      ...
    }:
    {
      inherit name uid home;
      gid = groupNumbers.${group};
    }
  ) accounts;

  groupLine =
    name: number:
    let
      members = lib.optionals (name == guest.serviceGroup) (map (account: account.name) accounts);
    in
    "${name}:x:${toString number}:${lib.concatStringsSep "," members}\n";
in
assert lib.all (clash: clash == null) clashes;
{
  inherit accounts;
  passwd = lib.concatMapStrings passwdLine passwd;
  group = lib.concatStrings (lib.mapAttrsToList groupLine usedGroups);
}
