# shellcheck shell=dash
# What users write to: a home for each that has one, owned by that user, and /var/log, where each may make files of
# its own.
while IFS=: read -r _ _ uid gid _ home _; do
  case $home in
  / | /root) ;;
  *)
    if [ ! -d "$home" ]; then
      mkdir -p "${home%/*}/" && mkdir -m 0750 "$home" && chown "$uid:$gid" "$home"
    fi
    ;;
  esac
done </etc/passwd
chown "0:$service_group" /var/log
chmod 3775 /var/log
