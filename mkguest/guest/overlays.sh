# shellcheck shell=dash
# On a read-only root: overlays, kept in memory, over what programs write to.
for directory in etc home root var; do
  mkdir -p "/run/mvm/overlay/$directory/upper" "/run/mvm/overlay/$directory/work"
  mount -t overlay -o "nosuid,nodev,lowerdir=/$directory,upperdir=/run/mvm/overlay/$directory/upper,workdir=/run/mvm/overlay/$directory/work" \
    overlay "/$directory"
done
