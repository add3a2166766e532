# shellcheck shell=dash
# The loopback, and the first network card where there is one: by `mvm.ip=ADDRESS/PREFIX` and `mvm.gw=ADDRESS` on the
# kernel's command line, else as the kernel has set it up by `ip=`, else by DHCP, which goes on in the background when
# no server answers at once.
ip link set lo up

first_card() {
  local card
  for card in /sys/class/net/*; do
    case ${card##*/} in
    lo | sit* | tunl* | ip6tnl*) ;;
    *)
      echo "${card##*/}"
      return
      ;;
    esac
  done
}

# address KEY: the value of a kernel argument if it is made of what addresses are made of.
address() {
  local value
  value=$(kernel_argument "$1")
  case $value in
  *[!0-9A-Fa-f.:/]*) mark "network: $1 is no address and was left out" ;;
  *) echo "$value" ;;
  esac
}

set_up_card() {
  local card ip gateway
  card=$1
  ip=$(address mvm.ip)
  gateway=$(address mvm.gw)
  ip link set "$card" up
  if [ -n "$ip" ]; then
    ip address add "$ip" dev "$card" || mark "network: $card does not take the address $ip"
    [ -z "$gateway" ] || ip route add default via "$gateway" dev "$card" ||
      mark "network: $gateway cannot be the gateway"
  elif [ -n "$(kernel_argument ip)" ]; then
    grep '^nameserver ' /proc/net/pnp >/etc/resolv.conf
  else
    udhcpc -b -S -t 3 -T 1 -A 5 -i "$card" -x "hostname:$(hostname)" -p /run/mvm/dhcp.pid -s /usr/lib/mvm/dhcp \
      >/dev/null 2>&1 || mark "network: the DHCP client ended"
  fi
}

card=$(first_card)
[ -z "$card" ] || set_up_card "$card"
