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

# superblock DEVICE: the first 136 bytes of an ext4 superblock (ext4's documentation, "Super Block") as 34 words of 32
# bits in hexadecimal.
superblock() {
  hexdump -s 1024 -n 136 -v -e '34/4 "%08x "' "$1"
}

# The 16 bytes of a label as such words.
label_of() {
  case $1 in
  config) echo "2d6d766d 666e6f63 00006769 00000000" ;;
  secrets) echo "2d6d766d 72636573 00737465 00000000" ;;
  data) echo "2d6d766d 61746164 00000000 00000000" ;;
  esac
}

# mount_drive NAME DEVICE WHERE OPTIONS: mount a labelled ext4, or say in `problem` why not. Leaves the number of its
# KiB in `kib`.
mount_drive() {
  local name=$1 device=$2 where=$3 options=$4
  problem=
  if [ ! -b "$device" ]; then
    problem="$device does not exist"
    return 1
  fi
  # shellcheck disable=SC2046 # words
  set -- $(superblock "$device")
  # The label; then, in one word, the magic number and above it the state, whose bit 1 says that the kernel found errors.
  if [ "${31-} ${32-} ${33-} ${34-}" != "$(label_of "$name")" ] || [ "${15#????}" != ef53 ]; then
    problem="$device is no ext4 file system with the label mvm-$name"
  elif [ "$((0x${15%????} & 2))" -ne 0 ]; then
    problem="the file system on $device is marked as having errors: check it with e2fsck before the next start"
  elif ! mount -t ext4 -o "$options" "$device" "$where"; then
    problem="$device cannot be mounted"
  else
    kib=$((0x$2 << (0x$7 & 7)))
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
  find "$2" ! -type f ! -type d -delete -o -path "$2/lost+found" -delete
  chown -R "0:$service_group" "$2"
  # A directory alone may be entered, whatever the drive says.
  chmod -R a-x,u=rX,g=rX,o= "$2"
}

# each_addressed WHERE FUNCTION: call the function with each path at the top of WHERE that is for one service, NAME/ or
# NAME.*, with that service's directory, and with its user.
each_addressed() {
  local name user path
  while read -r name user; do
    [ ! -d "$1/$name" ] || "$2" "$1/$name" "$1/$name" "$user"
    for path in "$1/$name".*; do
      [ ! -e "$path" ] || "$2" "$path" "$1/$name" "$user"
    done
  done </etc/mvm/service-users
}

drop() {
  rm -rf "$1"
}

# give PATH DIRECTORY USER: put the path into the service's own directory, for its user alone.
give() {
  if [ "$1" != "$2" ]; then
    # A file of the service's own name is for all, and stands in the way.
    [ ! -f "$2" ] || rm "$2"
    mkdir -p "$2"
    mv "$1" "$2/"
  fi
  chown -R "$3:0" "$2"
  chmod -R u=rX,g=,o= "$2"
}

mount_secrets() {
  local drive=/run/mvm/secrets-drive
  if ! mount_drive secrets /dev/vdc "$drive" "ro,$restricted"; then
    empty /run/mvm-secrets
    unavailable secrets /dev/vdc /mnt/secrets
    return
  fi
  for place in /mnt/secrets /run/mvm-secrets; do
    mount -t tmpfs -o "$restricted,size=4m,mode=0550" tmpfs "$place"
  done
  if copy_secrets "$drive" /mnt/secrets && cp -a /mnt/secrets/. /run/mvm-secrets/; then
    each_addressed /mnt/secrets drop
    each_addressed /run/mvm-secrets give
    for place in /mnt/secrets /run/mvm-secrets; do
      mount -o "remount,ro,$restricted" "$place"
    done
    state secrets /dev/vdc /mnt/secrets mounted
  else
    umount /mnt/secrets
    umount /run/mvm-secrets
    problem="the secrets do not fit into 4 MiB"
    empty /run/mvm-secrets
    unavailable secrets /dev/vdc /mnt/secrets
  fi
  umount "$drive"
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
  local path sectors
  path=$(kernel_argument mvm.data)
  if mount_drive data /dev/vdd /mnt/data "rw,$restricted,errors=remount-ro"; then
    read -r sectors </sys/class/block/vdd/size
    if [ "$kib" -lt "$((sectors / 2 - 1024))" ]; then
      mvm-grow /mnt/data /dev/vdd || mark "drive data: it keeps its size"
    fi
    install -d -o 0 -g "$service_group" -m 2775 /mnt/data
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
