#!/bin/sh
# Compares the options that were asked for (FRAGMENT, in .config's own syntax) with the .config that
# Kconfig made of them, and names each one that did not survive.
#
# Usage: check-config.sh FRAGMENT CONFIG; exits 1 if there is any difference.
set -eu

awk '
  function name(line) {
    sub(/^# /, "", line)
    sub(/[= ].*$/, "", line)
    return line
  }
  # An option that is off is absent or "is not set": Kconfig writes the second only where the option
  # could have been on.
  function value(line) {
    return line ~ /^#/ ? "n" : substr(line, index(line, "=") + 1)
  }
  !/^(# )?CONFIG_/ { next }
  FILENAME == ARGV[1] {
    names[++count] = name($0)
    wanted[name($0)] = value($0)
    next
  }
  { got[name($0)] = value($0) }
  END {
    for (i = 1; i <= count; i++) {
      is = names[i] in got ? got[names[i]] : "n"
      if (is == wanted[names[i]]) continue
      if (!lost++) print "the kernel configuration lost what it was asked for:"
      print "  " names[i] ": asked for " wanted[names[i]] ", got " is
    }
    exit lost > 0
  }
' "$1" "$2" >&2
