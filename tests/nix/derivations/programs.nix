# Programs of the package set, run where nothing is but their closure and, as in a guest, /bin/sh: Nix's sandbox, without
# a stdenv.
{ pkgs }:

let
  inherit (pkgs) lib;

  run =
    name: packages: script:
    derivation {
      name = "runs-${name}";
      inherit (pkgs) system;
      builder = "${pkgs.bash}/bin/bash";
      args = [
        "-euo"
        "pipefail"
        "-c"
        script
      ];
      PATH = lib.makeBinPath (packages ++ [ pkgs.coreutils ]);
    };
in
lib.mapAttrs (name: { packages, script }: run name packages script) {
  bash = {
    packages = [ pkgs.bash ];
    script = ''echo "$BASH_VERSION" >$out; bash -c 'exit 0' '';
  };
  bashInteractive = {
    packages = [ pkgs.bashInteractive ];
    script = "bash -ic 'history -s x; history' >$out; grep=$(<$out); [[ $grep == *x ]]";
  };
  coreutils = {
    packages = [ ];
    script = ''
      printf 'b\na\n' | sort | head -n 1 >$out
      [ "$(cat $out)" = a ]
    '';
  };
  curl = {
    packages = [ pkgs.curl ];
    script = ''
      curl --version >$out
      [[ $(<$out) == *https* ]]
      echo content >file
      [ "$(curl --silent file://$PWD/file)" = content ]
    '';
  };
  jq = {
    packages = [ pkgs.jq ];
    script = "echo '{\"a\": [1, 2]}' | jq -e '.a[1] == 2 and (\"é\" | test(\"^.$\"))' >$out";
  };
  git = {
    packages = [ pkgs.git ];
    script = ''
      export HOME=$PWD GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
      git init --quiet here
      echo text >here/file
      git -C here add file
      git -C here commit --quiet --message first
      git clone --quiet here there
      [ "$(<there/file)" = text ]
      git -C there log >$out
    '';
  };
  ripgrep = {
    packages = [ pkgs.ripgrep ];
    script = ''
      echo 'needle 42' >haystack
      rg --only-matching 'needle \d+' haystack >$out
    '';
  };
  python3 = {
    packages = [ pkgs.python3 ];
    script = ''
      python3 -I ${builtins.toFile "check.py" ''
        import asyncio, bz2, ctypes, curses, decimal, hashlib, json, lzma, readline, sqlite3, ssl, sys
        import urllib.request, uuid, venv, zlib, zoneinfo

        assert sqlite3.connect(":memory:").execute("select 1 + 1").fetchone() == (2,)
        assert ctypes.CDLL(None).getpid() > 0
        context = ssl.create_default_context(cafile=sys.argv[1])
        assert len(context.get_ca_certs()) > 100
        assert all(path.startswith("/nix/store/") for path in sys.path), sys.path
        asyncio.run(asyncio.sleep(0))
        print(sys.version)
      ''} ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt >$out
    '';
  };
  withPackages = {
    packages = [
      (pkgs.python3.withPackages (ps: [
        ps.flask
        ps.pyyaml
      ]))
    ];
    script = ''
      python3 -I ${builtins.toFile "check.py" ''
        import flask, sys, yaml

        app = flask.Flask("x")
        app.route("/")(lambda: "hello")
        assert app.test_client().get("/").text == "hello"
        print(sys.prefix)
      ''} >$out
      flask --version >>$out
    '';
  };
  nodejs = {
    packages = [ pkgs.nodejs ];
    script = ''
      export HOME=$PWD
      node -e 'console.log(require("node:crypto").createHash("sha256").update("x").digest("hex"))' >$out
      [ "$(printf x | sha256sum | cut -d " " -f 1)" = "$(<$out)" ]
      npm --version >>$out
    '';
  };
  nodejs_22 = {
    packages = [ pkgs.nodejs_22 ];
    script = ''
      node -p process.version >$out
      [[ $(<$out) == v22.* ]]
    '';
  };
  postgresql = {
    packages = [ pkgs.postgresql ];
    script = ''
      [ "$(id -u)" -ne 0 ]
      export LC_ALL=C PGHOST=$PWD
      initdb --auth=trust --username=me --pgdata=data >log
      pg_ctl --pgdata=data --wait --log=log --options="-k $PWD -c listen_addresses=" start >/dev/null
      psql --username=me --dbname=postgres --tuples-only --no-align --command='select 6 * 7' >$out
      [ "$(<$out)" = 42 ]
      psql --username=me --dbname=postgres --command='create extension hstore' >/dev/null
      pg_ctl --pgdata=data --wait stop >/dev/null
    '';
  };
  redis = {
    packages = [ pkgs.redis ];
    script = ''
      redis-server --port 0 --unixsocket $PWD/socket --daemonize yes >/dev/null
      for _ in {1..50}; do
        [ -S socket ] && break
        sleep 0.1
      done
      redis-cli -s socket set key value >/dev/null
      redis-cli -s socket get key >$out
      [ "$(<$out)" = value ]
      redis-cli -s socket shutdown nosave
    '';
  };
  nginx = {
    packages = [
      pkgs.nginx
      pkgs.curl
    ];
    script = ''
      mkdir www
      echo page >www/index.html
      cat >nginx.conf <<END
      daemon on;
      pid $PWD/pid;
      error_log $PWD/errors;
      events { }
      http {
        include ${pkgs.nginx}/conf/mime.types;
        access_log off;
        client_body_temp_path $PWD/body;
        proxy_temp_path $PWD/proxy;
        fastcgi_temp_path $PWD/fastcgi;
        uwsgi_temp_path $PWD/uwsgi;
        scgi_temp_path $PWD/scgi;
        server {
          listen 127.0.0.1:8080;
          root $PWD/www;
        }
      }
      END
      nginx -e $PWD/errors -c $PWD/nginx.conf -t
      nginx -e $PWD/errors -c $PWD/nginx.conf
      curl --silent --fail --retry 5 --retry-connrefused --dump-header headers http://127.0.0.1:8080/ >$out
      [[ $(<headers) == *text/html* ]]
      [ "$(<$out)" = page ]
      nginx -e $PWD/errors -c $PWD/nginx.conf -s stop
    '';
  };
  e2fsprogs = {
    packages = [
      pkgs.e2fsprogs
      pkgs.gnutar
    ];
    script = ''
      mkdir tree
      echo text >tree/file
      tar --create --directory=tree . | mke2fs -q -t ext4 -d - image 4M
      e2fsck -fn image
      debugfs -R 'cat /file' image >$out
      [ "$(<$out)" = text ]
    '';
  };
  squashfsTools = {
    packages = [
      pkgs.squashfsTools
      pkgs.gnutar
    ];
    script = ''
      mkdir tree
      echo text >tree/file
      for compressor in gzip lz4 xz zstd; do
        tar --create --directory=tree . | mksquashfs - image.$compressor -tar -comp $compressor -quiet -no-progress
        unsquashfs -cat image.$compressor file >$out
        [ "$(<$out)" = text ]
      done
    '';
  };
  util-linux = {
    packages = [ pkgs.util-linux ];
    script = ''
      unshare --user --map-root-user id -u >$out
      [ "$(<$out)" = 0 ]
      flock lock true
    '';
  };
  cacert = {
    packages = [ ];
    script = ''
      cp ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt $out
      [ "$(tr -cd '\n' <$out | wc -c)" -gt 2000 ]
    '';
  };
  # The shell that starts a guest's services takes what a guest's packages bring before what is built into it.
  busybox = {
    packages = [ ];
    script = ''
      busybox=${pkgs.pkgsStatic.busybox}/bin/busybox
      mkdir bin
      printf '#!%s sh\necho from PATH\n' $busybox >bin/ls
      chmod +x bin/ls
      [ "$(PATH=$PWD/bin $busybox sh -c 'ls /')" = "from PATH" ]
      ! PATH=$PWD $busybox sh -c 'ls /'
      PATH=${pkgs.pkgsStatic.busybox}/bin $busybox sh -c 'ls /' >$out
    '';
  };
  debianPackage = {
    packages = [ pkgs.debianPackages.htop ];
    script = "htop --version >$out";
  };

  # Every program and library that the others brought along, as the loader resolves it. A plugin that Debian links
  # against a package that it only recommends is none that runs.
  libraries = {
    packages = [ pkgs.findutils ];
    script = ''
      loader=${pkgs.debianPackages.libc6}/lib64/ld-linux-x86-64.so.2
      shopt -s nullglob
      count=0
      : >problems
      for package in ${
        toString (
          with pkgs;
          [
            bash
            coreutils
            curl
            e2fsprogs
            git
            jq
            nginx
            nodejs
            postgresql
            python3
            redis
            ripgrep
            squashfsTools
            util-linux
          ]
        )
      }; do
        while IFS= read -r -d "" file; do
          IFS= read -r -d "" -n 4 magic <"$file" || true
          [ "$magic" = $'\x7fELF' ] || continue
          listing=$($loader --list "$file" 2>&1) || true
          while read -r name arrow path rest; do
            case $name:$arrow:$path in
            linux-vdso.so.1:* | /nix/store/*:\(* | *:=\>:/nix/store/* | statically:linked*) ;;
            *) echo "$file: $name $arrow $path $rest" >>problems ;;
            esac
          done <<<"$listing"
          count=$((count + 1))
        done < <(find $package/bin/ $package/lib/ -type f -size +1k \( -perm -u+x -o -name '*.so*' \) -print0)
      done
      [ $count -gt 300 ]
      cat problems
      [ ! -s problems ]
      echo $count >$out
    '';
  };
}
