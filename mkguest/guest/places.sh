# shellcheck shell=dash
# What users write to: a home for each that has one, owned by that user, and /var/log, where each may make files of
# its own. `service_group` is mount-drives.sh's.
while IFS=: read -r _ _ uid gid _ home _; do
  case $home in
  / | /root) ;;
  *) [ -d "$home" ] || install -d -o "$uid" -g "$gid" -m 0750 "$home" ;;
  esac
done </etc/passwd
install -d -o 0 -g "${service_group:?}" -m 3775 /var/log
