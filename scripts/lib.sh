# shellcheck shell=bash
# shellcheck disable=SC2034 # variables are for the scripts that source this
# What the scripts share: messages, system packages, the virtual environment and the launchers. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
me=$(basename "$0")

# All that atolld needs on the host; tests and images need nothing more.
host_packages=(
  acl attr btrfs-progs ca-certificates debian-archive-keyring dnsmasq-base e2fsprogs iproute2 kmod lxc lxcfs mmdebstrap
  nftables python3 python3-venv rsync squashfs-tools tar uidmap xz-utils zstd
)

say() { printf '%s: %s\n' "$me" "$*"; }
warn() { printf '%s: warning: %s\n' "$me" "$*" >&2; }
die() {
  printf '%s: %s\n' "$me" "$*" >&2
  exit 1
}

need_root() { ((EUID == 0)) || die "must be run as root (try: sudo $0)"; }

installed() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

# install_packages PACKAGE...: installs those that are missing; asks the network for nothing when none is.
install_packages() {
  local missing=() package
  command -v apt-get >/dev/null || die "this system has no apt-get; Debian 12, Debian 13 and Ubuntu 24.04 are supported"
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  say "installing ${#missing[@]} system packages: ${missing[*]}"
  apt-get -qq update || die "apt-get update failed: check the network and /etc/apt/sources.list"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null ||
    die "could not install: ${missing[*]}"
}

# lend_ids: gives root a range of subordinate ids, the same of users and groups, behind everybody else's, unless it has some.
# Machines run with these; being written down keeps them from being given to anybody else.
lend_ids() {
  local files=(/etc/subuid /etc/subgid) first
  touch "${files[@]}"
  if grep -q '^\(root\|0\):' "${files[0]}" && grep -q '^\(root\|0\):' "${files[1]}"; then return; fi
  first=$(awk -F: 'BEGIN { first = 1000000 } $2 + $3 > first { first = $2 + $3 } END { print first }' "${files[@]}")
  say "lending machines the ids from $first on (/etc/subuid, /etc/subgid)"
  echo "root:$first:1000000000" | tee -a "${files[@]}" >/dev/null
}

# The interpreter of the distribution: what is installed next to it is upgraded with it.
system_python() {
  local python=/usr/bin/python3
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "Python 3.11 or newer is needed, and $python is not that"
  printf '%s\n' "$python"
}

# make_venv DIRECTORY LOCK SOURCE: a virtual environment with what the lock file pins and SOURCE on its path. Made anew
# for another interpreter or another lock file, otherwise left as it is; where that fails, the one that was there stays.
make_venv() {
  local venv=$1 lock=$2 source=$3 python stamp wanted
  python=$(system_python)
  stamp=$venv/.lock-sha256
  wanted=$("$python" -c 'import sys; print(sys.version.split()[0])')-$(sha256sum <"$lock" | cut -c1-64)
  if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
    say "making the virtual environment $venv"
    rm -rf "$venv.old"
    [[ ! -e $venv ]] || mv "$venv" "$venv.old"
    if ! fill_venv "$venv" "$lock"; then
      rm -rf "$venv"
      [[ ! -e $venv.old ]] || mv "$venv.old" "$venv"
      die "could not install what $(basename "$lock") pins; check the network"
    fi
    rm -rf "$venv.old"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  printf '%s\n' "$source" >"$(site_packages "$venv")/atoll.pth"
}

fill_venv() {
  "$(system_python)" -m venv "$1" &&
    "$1/bin/pip" --disable-pip-version-check -qq install --require-hashes --only-binary :all: -r "$2"
}

site_packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# write_launcher FILE PYTHON-WITH-FLAGS MODULE SOURCE [LIBRARY]: a program that runs MODULE.main with SOURCE in front of the
# search path and LIBRARY at its end, where no import looks in vain for a module of Python's own.
write_launcher() {
  local file=$1 python=$2 module=$3 source=$4 library=${5-} path
  path="sys.path.insert(0, \"$source\")"
  [[ -z $library ]] || path+=$'\n'"sys.path.append(\"$library\")"
  printf '#!%s\nimport sys\n\n%s\n\nfrom %s import main\n\nsys.exit(main())\n' "$python" "$path" "$module" >"$file.new"
  chmod 755 "$file.new"
  mv "$file.new" "$file"
}

# write_launchers DIRECTORY VENV SOURCE: `atoll` and `atolld`. The client skips site and the environment, which halves its start.
write_launchers() {
  local directory=$1 venv=$2 source=$3 site
  site=$(site_packages "$venv")
  mkdir -p "$directory"
  write_launcher "$directory/atoll" "$(readlink -f "$venv/bin/python") -IS" atoll.cli.main "$source" "$site"
  write_launcher "$directory/atolld" "$venv/bin/python -I" atoll.runtime.main "$source"
}
