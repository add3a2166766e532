# Shell that runs in a unit's output, for what a package's maintainer scripts would do or what its compiled-in paths
# need, by unit. `$out` is the unit.
{
  gawk = "ln -s gawk $out/bin/awk";

  # Programs such as git-upload-pack are links to git, which goes by the name that it was called by.
  git = ''
    mv -f $out/bin/git $out/lib/git-core/git
    for link in $out/bin/git-*; do
      [ ! -L $link ] || ln -sf ../lib/git-core/git $link
    done
    {
      echo '#!/bin/sh'
      echo "export GIT_EXEC_PATH=\''${GIT_EXEC_PATH-$out/lib/git-core}"
      echo "export GIT_TEMPLATE_DIR=\''${GIT_TEMPLATE_DIR-$out/share/git-core/templates}"
      echo "exec $out/lib/git-core/git \"\$@\""
    } >$out/bin/git
    chmod 755 $out/bin/git
  '';

  nginx = "ln -s etc/nginx $out/conf";

  # Just-in-time compilation would bring in LLVM; PostgreSQL goes without where its provider is absent.
  postgresql-17 = ''
    rm -rf $out/lib/postgresql/17/lib/llvmjit* $out/lib/postgresql/17/lib/bitcode
    mkdir -p $out/bin
    for program in $out/lib/postgresql/17/bin/*; do
      ln -sf ../lib/postgresql/17/bin/''${program##*/} $out/bin/
    done
  '';
}
