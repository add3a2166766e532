# Python with nixpkgs' names: `python3`, `python3.withPackages`, `python3Packages`. A module `foo` is Debian's
# `python3-foo`; an environment is a virtual environment (PEP 405) whose packages are links into the store.
{ self, lib }:

let
  inherit (self) debianPackages lock runCommand;

  prefix = "python3-";
  names = lib.filter (lib.hasPrefix prefix) (lib.attrNames debianPackages);
  python3Packages =
    lib.listToAttrs (
      map (name: lib.nameValuePair (lib.removePrefix prefix name) debianPackages.${name}) names
    )
    // {
      python = python3;
      pyyaml = debianPackages.python3-yaml;
    };

  # The module packages below `packages`, themselves included.
  modules =
    packages:
    let
      units = builtins.genericClosure {
        startSet = map (package: { key = lock.packages.${package.pname}.unit; }) packages;
        operator = { key }: map (name: { key = name; }) lock.units.${key}.depends;
      };
    in
    map ({ key }: debianPackages.${key}) (lib.filter ({ key }: lib.hasPrefix prefix key) units);

  base = debianPackages.python3;
  environment =
    packages:
    runCommand "python3-${base.version}-env"
      {
        modules = modules packages;
        passthru = python3Attributes;
        meta.mainProgram = "python3";
      }
      ''
        site=$out/lib/python${pythonVersion}/site-packages
        mkdir -p "$out/bin" "$site"
        printf 'home = %s\ninclude-system-site-packages = false\n' ${base}/bin >"$out/pyvenv.cfg"
        for program in python python3 python${pythonVersion}; do
          ln -s ${base}/bin/python${pythonVersion} "$out/bin/$program"
        done
        for module in $modules; do
          cp -rs --no-preserve=mode --no-clobber "$module"/lib/python3/dist-packages/. "$site/"
          for program in "$module"/bin/*; do
            [ -f "$program" ] || continue
            sed "1s|^#!.*/python3.*|#!$out/bin/python3|" "$program" >"$out/bin/''${program##*/}"
            chmod 755 "$out/bin/''${program##*/}"
          done
        done
      '';

  pythonVersion = "3.13";
  python3Attributes = {
    inherit pythonVersion;
    pname = "python3";
    inherit (base) version;
    pkgs = python3Packages;
    sitePackages = "lib/python${pythonVersion}/site-packages";
    withPackages = choose: environment (choose python3Packages);
    interpreter = "${base}/bin/python3";
  };
  python3 = base // python3Attributes;
in
{
  inherit python3 python3Packages;
  python313 = python3;
  python313Packages = python3Packages;
}
