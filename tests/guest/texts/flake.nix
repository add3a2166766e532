# A guest whose every text comes from texts.json beside this file: a list of { text, quoted }, quoted for the shell.
{
  inputs.mvm.url = "github:mvm-guest/mvm-guest";

  outputs =
    { mvm, ... }:
    let
      system = "x86_64-linux";
      texts = builtins.fromJSON (builtins.readFile ./texts.json);
      numbers = builtins.genList (n: n) (builtins.length texts);
      text = n: (builtins.elemAt texts n).text;
      quoted = n: (builtins.elemAt texts n).quoted;
      all = f: builtins.listToAttrs (map f numbers);
      guest = rootfs: {
        name = "texts";
        variant = "dev";
        inherit rootfs;
        services.texts = {
          preStart = builtins.concatStringsSep "\n" (map (n: "export PRE_${toString n}=${quoted n}") numbers);
          env = all (n: {
            name = "ENV_${toString n}";
            value = text n;
          });
          command =
            builtins.concatStringsSep "\n" (map (n: "printf %s ${quoted n} >$HOME/${toString n}") numbers)
            + "\ntouch $HOME/done\nexec sleep 1000000";
        };
        healthChecks = all (n: {
          name = "check-${toString n}";
          value.healthCmd = "printf %s ${quoted n} | cmp - /srv/${toString n}";
        });
        extraFiles = all (n: {
          name = "/srv/${toString n}";
          value.content = text n;
        });
      };
    in
    {
      packages.${system} = {
        ext4 = mvm.lib.${system}.mkGuest (guest "ext4");
        squashfs = mvm.lib.${system}.mkGuest (guest "squashfs");
      };
    };
}
