#!/bin/sh
# What udhcpc runs in a VM of the demo: puts into force what Alcor's DHCP server said. udhcpc gives it in variables.
set -eu
case "$1" in
    bound | renew) ;;
    deconfig) ip -4 address flush dev "$interface" scope global; exit 0 ;;
    *) exit 0 ;;
esac
[ -z "${mtu:-}" ] || ip link set dev "$interface" mtu "$mtu"
ip address replace "$ip/$mask" dev "$interface"
# Classless routes (RFC 3442) replace the router option: pairs of destination and next hop.
if [ -n "${staticroutes:-}" ]; then
    # shellcheck disable=SC2086 # the words are the pairs
    set -- $staticroutes
    while [ "$#" -ge 2 ]; do
        ip route replace "$1" via "$2" dev "$interface"
        shift 2
    done
elif [ -n "${router:-}" ]; then
    ip route replace default via "${router%% *}" dev "$interface"
fi
printf 'ip=%s/%s mtu=%s dns=%s routes=%s hostname=%s lease=%s\n' "$ip" "$mask" "${mtu:-}" "${dns:-}" \
    "${staticroutes:-${router:-}}" "${hostname:-}" "${lease:-}"
