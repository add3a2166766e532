# shellcheck shell=dash
# A home for each user that has one, owned by that user.
while IFS=: read -r _ _ uid gid _ home _; do
  case $home in
  /home/*)
    if [ ! -d "$home" ]; then
      mkdir -m 0750 "$home" && chown "$uid:$gid" "$home"
    fi
    ;;
  esac
done </etc/passwd
chmod 0700 /root
