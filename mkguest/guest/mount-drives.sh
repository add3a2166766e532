# shellcheck shell=dash
# Mounts the config, secrets and data drives as the drive model says, and leaves what became of each in
# /run/mvm/drives/NAME for the agent. A drive that fails leaves an empty read-only file system at its mount point, so
# that nothing is written to the root in its place.
read -r service_group </etc/mvm/service-group
restricted=nosuid,nodev,noexec

# state NAME DEVICE MOUNTPOINT STATE [DETAIL]: the texts are this file's own and hold nothing that JSON would escape.
state() {
  printf '{"device":"%s","mountPoint":"%s","state":"%s","detail":"%s"}\n' "$2" "$3" "$4" "$5" >"/run/mvm/drives/$1"
  mark "drive $1: $4${5:+: $5}"
}

# The place of a drive that is not there, or cannot be used.
empty() {
  mount -t tmpfs -o "ro,$restricted,size=4k,mode=0555" tmpfs "$1"
}

# label DEVICE: the volume name of an ext4 superblock (16 bytes at 1144); nothing where its magic is not there.
label() {
  if [ "$(hexdump -s 1080 -n 2 -e '2/1 "%02x"' "$1")" = 53ef ]; then
    dd if="$1" bs=8 skip=143 count=2 2>/dev/null | tr -d '\000'
  fi
}

# The superblock says that the kernel found errors (bit 1 of s_state, at 1082).
has_errors() {
  [ "$(($(hexdump -s 1082 -n 1 -e '1/1 "%d"' "$1") & 2))" -ne 0 ]
}

# mount_drive NAME DEVICE WHERE OPTIONS: mount a labelled ext4, or say in `problem` why not.
mount_drive() {
  problem=
  if [ ! -b "$2" ]; then
    problem="$2 does not exist"
  elif [ "$(label "$2")" != "mvm-$1" ]; then
    problem="$2 is no ext4 file system with the label mvm-$1"
  elif has_errors "$2"; then
    problem="the file system on $2 is marked as having errors: check it with e2fsck before the next start"
  elif ! mount -t ext4 -o "$4" "$2" "$3"; then
    problem="$2 cannot be mounted"
  fi
  [ -z "$problem" ]
}

# unavailable NAME DEVICE MOUNTPOINT: a drive that the host gave fails; one that it did not give is absent.
unavailable() {
  empty "$3"
  if [ -b "$2" ]; then
    state "$1" "$2" "$3" failed "$problem"
  else
    state "$1" "$2" "$3" absent "$problem"
  fi
}

mount_config() {
  if mount_drive config /dev/vdb /mnt/config "ro,$restricted"; then
    state config /dev/vdb /mnt/config mounted
  else
    unavailable config /dev/vdb /mnt/config
  fi
}

# copy_secrets FROM TO: files and directories only, no links followed; `cp` fails where the space does not do.
copy_secrets() {
  cp -R -P "$1/." "$2/" || return 1
  rm -rf "$2/lost+found"
  find "$2" ! -type f ! -type d -delete
  chown -R "0:$service_group" "$2"
  find "$2" -type f -exec chmod 0440 {} +
  find "$2" -type d -exec chmod 0550 {} +
}

# What is addressed to one service: NAME/ and NAME.* at the top.
drop_addressed() {
  local name
  while read -r name _; do
    [ ! -d "$1/$name" ] || rm -rf "${1:?}/$name"
    rm -rf "$1/$name".*
  done </etc/mvm/service-users
}

give_addressed() {
  local name user file
  while read -r name user; do
    [ ! -f "$1/$name" ] || rm "$1/$name"
    for file in "$1/$name".*; do
      [ -e "$file" ] || continue
      mkdir -p "$1/$name"
      chmod 0750 "$1/$name"
      mv "$file" "$1/$name/"
    done
    if [ -d "$1/$name" ]; then
      chown -R "$user:0" "$1/$name"
      find "$1/$name" -type f -exec chmod 0400 {} +
      find "$1/$name" -type d -exec chmod 0500 {} +
    fi
  done </etc/mvm/service-users
}

mount_secrets() {
  local drive=/run/mvm/secrets-drive
  mkdir -m 0700 "$drive"
  mkdir /run/mvm-secrets
  if ! mount_drive secrets /dev/vdc "$drive" "ro,$restricted"; then
    empty /run/mvm-secrets
    unavailable secrets /dev/vdc /mnt/secrets
    return
  fi
  for place in /mnt/secrets /run/mvm-secrets; do
    mount -t tmpfs -o "$restricted,size=4m,mode=0550" tmpfs "$place"
  done
  if copy_secrets "$drive" /mnt/secrets && copy_secrets "$drive" /run/mvm-secrets; then
    drop_addressed /mnt/secrets
    give_addressed /run/mvm-secrets
    for place in /mnt/secrets /run/mvm-secrets; do
      mount -o "remount,ro,$restricted" "$place"
    done
    state secrets /dev/vdc /mnt/secrets mounted
  else
    umount /mnt/secrets /run/mvm-secrets
    problem="the secrets do not fit into 4 MiB"
    empty /run/mvm-secrets
    unavailable secrets /dev/vdc /mnt/secrets
  fi
  umount "$drive"
  rmdir "$drive"
}

# Whether the data drive may be bound at $1: the host chooses, within what the image and the drive model allow.
may_bind() {
  case $1 in
  *[!A-Za-z0-9._/-]* | */../* | */.. | */./* | */. | *//* | */) return 1 ;;
  /var/lib/?* | /home/?*) ;;
  *) grep -qxF -e "$1" /etc/mvm/mount-points ;;
  esac
}

# bind_data PATH: whatever is at /mnt/data, even if that is empty for a drive that failed, is at PATH too. No link is
# followed on the way.
bind_data() {
  mkdir -p "$1" && [ "$(readlink -f "$1")" = "$1" ] && mount -o bind /mnt/data "$1" && echo "$1" >/run/mvm/data-path
}

mount_data() {
  local path
  path=$(kernel_argument mvm.data)
  if mount_drive data /dev/vdd /mnt/data "rw,$restricted,errors=remount-ro"; then
    mvm-grow /mnt/data /dev/vdd || mark "drive data: it keeps its size"
    chown "0:$service_group" /mnt/data
    chmod 2775 /mnt/data
    state data /dev/vdd /mnt/data mounted
  else
    unavailable data /dev/vdd /mnt/data
  fi
  case $path in
  "" | /mnt/data) ;;
  *)
    if ! may_bind "$path" || ! bind_data "$path"; then
      state data /dev/vdd /mnt/data failed "the place that the host asks for is none of this guest, or is taken"
    fi
    ;;
  esac
}

printf '{"device":"/dev/vda","mountPoint":"/","state":"mounted","detail":""}\n' >/run/mvm/drives/root
mount_config
mount_secrets
mount_data
