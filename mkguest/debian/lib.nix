# The part of nixpkgs' `lib` that this project and its guests use, under the same names.
rec {
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    functionArgs
    genList
    hasAttr
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isString
    length
    lessThan
    listToAttrs
    mapAttrs
    match
    replaceStrings
    sort
    stringLength
    substring
    tail
    toJSON
    ;

  mod = a: b: a - b * (a / b);
  min = a: b: if a < b then a else b;

  fix =
    f:
    let
      x = f x;
    in
    x;
  id = x: x;
  const = x: _: x;

  nameValuePair = name: value: { inherit name value; };
  filterAttrs =
    keep: set:
    listToAttrs (
      map (name: nameValuePair name set.${name}) (filter (name: keep name set.${name}) (attrNames set))
    );
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  optionalAttrs = condition: set: if condition then set else { };
  recursiveUpdate =
    left: right:
    left
    // mapAttrs (
      name: value:
      if isAttrs value && isAttrs (left.${name} or null) then
        recursiveUpdate left.${name} value
      else
        value
    ) right;

  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalString = condition: text: if condition then text else "";
  toList = value: if isList value then value else [ value ];
  unique = builtins.foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  concatMapStringsSep =
    separator: f: values:
    concatStringsSep separator (map f values);
  concatMapStrings = concatMapStringsSep "";
  concatStrings = concatStringsSep "";
  findFirst =
    predicate: default: values:
    let
      found = filter predicate values;
    in
    if found == [ ] then default else head found;
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      start = stringLength text - stringLength suffix;
    in
    start >= 0 && substring start (stringLength suffix) text == suffix;
  hasInfix = infix: text: replaceStrings [ infix ] [ "" ] text != text;
  removePrefix =
    prefix: text:
    if hasPrefix prefix text then substring (stringLength prefix) (stringLength text) text else text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  splitString = separator: text: filter isString (builtins.split (escapeRegex separator) text);
  stringToCharacters = text: genList (i: substring i 1 text) (stringLength text);
  # The number of insertions, deletions and substitutions between two strings, a row of the table after the other.
  levenshtein =
    a: b:
    let
      columns = stringToCharacters b;
      count = length columns;
      row =
        previous: character:
        builtins.foldl' (
          row: column:
          let
            cost = if elemAt columns column == character then 0 else 1;
          in
          row
          ++ [
            (min (min (elemAt row column + 1) (elemAt previous (column + 1) + 1)) (
              elemAt previous column + cost
            ))
          ]
        ) [ (head previous + 1) ] (genList id count);
      last = builtins.foldl' row (genList id (count + 1)) (stringToCharacters a);
    in
    elemAt last count;
  upperChars = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  lowerChars = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
  toUpper = replaceStrings lowerChars upperChars;
  toLower = replaceStrings upperChars lowerChars;
  escape = characters: replaceStrings characters (map (c: "\\${c}") characters);
  escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
  escapeShellArg = value: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;

  isDerivation = value: value.type or null == "derivation";
  isStorePath = value: hasPrefix builtins.storeDir (toString value);
  getBin = package: package.bin or package;
  getExe' = package: name: "${getBin package}/bin/${name}";
  getExe = package: getExe' package (package.meta.mainProgram or package.pname or package.name);
  makeBinPath = concatMapStringsSep ":" (package: "${getBin package}/bin");
  licenses = { };
  platforms.linux = [
    "x86_64-linux"
    "aarch64-linux"
  ];

  cleanSourceWith =
    {
      src,
      filter ? _: _: true,
      name ? baseNameOf src,
    }:
    builtins.path {
      inherit name filter;
      path = src;
    };

  callPackageWith =
    scope: file: overrides:
    let
      f = if isFunction file then file else import file;
      make = arguments: f arguments // { override = changes: make (arguments // changes); };
    in
    make (builtins.intersectAttrs (functionArgs f) scope // overrides);

  fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
}
