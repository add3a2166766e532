# shellcheck shell=dash
# On a read-only root: overlays, kept in memory, over what programs write to. An overlay's top has the permissions of
# its upper directory.
for directory in etc home root var; do
  layers=/run/mvm/overlay/$directory
  mkdir -p "$layers/work"
  mkdir -m "$(stat -c %a "/$directory")" "$layers/upper"
  mount -t overlay -o "nosuid,nodev,lowerdir=/$directory,upperdir=$layers/upper,workdir=$layers/work" overlay \
    "/$directory"
done
