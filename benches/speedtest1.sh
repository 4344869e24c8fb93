#!/bin/sh
# Fetches SQLite's own benchmark, speedtest1.c, and prints where it is. The file is SQLite's and is not kept here.
#
#   LITEFLEET_SPEEDTEST1_C=$(benches/speedtest1.sh) cargo run --release -p litefleet-benches -- all
#
# Needs Debian or a relative of it: the source package of the machine's own release is downloaded with an apt
# configuration of its own, so that neither the machine's list of sources nor its caches change. What is used is the
# pristine upstream tarball in it. DEBIAN_MIRROR names another mirror. Elsewhere set LITEFLEET_SPEEDTEST1_C by hand: the
# file is test/speedtest1.c in SQLite's source tree.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache="$root/.cache/speedtest1"
found="$cache/speedtest1.c"
if [ -s "$found" ]; then
    echo "$found"
    exit 0
fi

mkdir -p "$cache/lists/partial" "$cache/archives/partial" "$cache/source"
. /etc/os-release
release=${VERSION_CODENAME:?this release of the system has no name}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$cache/sources.list"
cat >"$cache/apt.conf" <<CONF
Dir::Etc::sourcelist "$cache/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$cache/lists";
Dir::Cache "$cache";
Dir::Cache::archives "$cache/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
APT::Sandbox::User "";
CONF
export APT_CONFIG="$cache/apt.conf"
apt-get --quiet update >&2
(cd "$cache/source" && apt-get --quiet source --download-only sqlite3 >&2)

set -- "$cache"/source/sqlite3_*.orig.tar.*
[ -f "$1" ] || { echo "speedtest1.sh: the source package has no upstream tarball" >&2; exit 1; }
mkdir -p "$cache/unpacked"
tar -xf "$1" -C "$cache/unpacked" --wildcards '*/test/speedtest1.c'
cp "$cache"/unpacked/*/test/speedtest1.c "$found"
rm -rf "$cache/unpacked" "$cache/lists"
echo "$found"
