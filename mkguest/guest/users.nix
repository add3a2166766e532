# The accounts of a guest: root, the service group, the agent's listener, and a user for each service.
{ lib, guest }:

let
  # A number that depends on the name alone, so that a new user never gets the files of another.
  uidOf =
    name:
    let
      value = character: digits.${character};
      digits = lib.listToAttrs (
        lib.genList (number: {
          name = lib.substring number 1 "0123456789abcdef";
          value = number;
        }) 16
      );
    in
    1100
    + lib.foldl' (remainder: character: lib.mod (remainder * 16 + value character) 8000) 0 (
      lib.stringToCharacters (builtins.hashString "sha256" name)
    );

  named = lib.unique (
    lib.filter (name: name != guest.serviceGroup) (
      lib.mapAttrsToList (_: service: service.user) guest.services
    )
  );
  accounts = map (name: {
    inherit name;
    uid = uidOf name;
  }) (lib.sort lib.lessThan named);

  clash = lib.filter (
    account: lib.any (other: other.uid == account.uid && other.name != account.name) accounts
  ) accounts;

  fixed = [
    {
      name = "root";
      uid = 0;
      home = "/root";
      shell = "/bin/sh";
    }
    {
      name = guest.serviceGroup;
      uid = 900;
    }
    {
      name = "mvm-agent";
      uid = 901;
    }
  ];

  passwdLine =
    {
      name,
      uid,
      home ? "/",
      shell ? "/bin/false",
    }:
    "${name}:x:${toString uid}:${toString uid}::${home}:${shell}\n";

  members = map (account: account.name) accounts;
in
if clash != [ ] then
  throw "mkGuest: services: the users ${lib.concatMapStringsSep " and " (account: account.name) clash} get one uid: rename one"
else
  {
    inherit accounts;
    passwd = lib.concatMapStrings passwdLine (
      fixed ++ map (account: account // { home = "/home/${account.name}"; }) accounts
    );
    group = lib.concatMapStrings (
      { name, uid, ... }:
      "${name}:x:${toString uid}:${
        lib.optionalString (name == guest.serviceGroup) (lib.concatStringsSep "," members)
      }\n"
    ) (fixed ++ accounts);
  }
