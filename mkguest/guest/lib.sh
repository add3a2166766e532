# shellcheck shell=dash
# What the boot scripts share: marks on the console, and what the kernel says of the root and its command line.

# Print a mark; the kernel adds the time.
mark() {
  printf '<5>mvm: %s\n' "$1" >/dev/kmsg
}

# The type of the root file system.
root_type() {
  local mount_point type
  while read -r _ mount_point type _; do
    if [ "$mount_point" = / ]; then
      echo "$type"
      return
    fi
  done </proc/mounts
}

# The value of the kernel argument $1; nothing if it is not given.
kernel_argument() {
  local line word
  read -r line </proc/cmdline
  # The command line is words; none of its values is a pattern, since none is expanded here.
  set -f
  for word in $line; do
    case $word in
    "$1="*) echo "${word#*=}" ;;
    esac
  done
  set +f
}
