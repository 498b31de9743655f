#!/bin/sh
# The pilot sha256:@DIGEST@ for a machine where Python may have to be unpacked first.
# Its exit status is the pilot's; 2: there is no Python, 21: there is nowhere to write.

say() { echo "pilot: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# Whether this is a Python that the pilot takes.
fit() { "$1" -I -S -c 'import sys, json, ssl, _ctypes, resource; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; }

# A new directory of our own in $1: its name is then in $directory.
own() {
  place=$(cd "$1" 2>/dev/null && pwd) && mkdir -m 700 "$place/pilotage-$$" 2>/dev/null && directory=$place/pilotage-$$
}

# Whether programs can be started in $directory: not where it is mounted noexec.
runs() {
  printf '#!/bin/sh\n' >"$directory/runs" && chmod 700 "$directory/runs" && "$directory/runs" 2>/dev/null
}

fetch() {
  if has curl; then
    curl -fsSL --connect-timeout 20 --max-time 600 --max-filesize 1000000000 -o "$2" "$1"
  elif has wget; then
    wget -q -T 60 -O "$2" "$1"
  else
    say "neither curl nor wget is here to fetch $1"
    return 1
  fi
}

sum_of() {
  if has sha256sum; then sha256sum <"$1"; elif has shasum; then shasum -a 256 <"$1"; else openssl dgst -r -sha256 <"$1"; fi
}

# The Python in the archive $1, whose SHA-256 is $2: it is then in $python.
unpack() {
  archive=$1
  case $1 in http://* | https://*)
    archive=$directory/python.tar.gz
    fetch "$1" "$archive" || { say "cannot fetch $1"; return; }
    ;;
  esac
  sum=$(sum_of "$archive") || { say "cannot check $1"; return; }
  [ "${sum%% *}" = "$2" ] || { say "refused $1: it is sha256:${sum%% *}, and not $2"; return; }
  rm -rf "$directory/python"
  mkdir "$directory/python" && tar -xzf "$archive" -C "$directory/python" || { say "cannot unpack $1"; return; }
  if [ "$archive" != "$1" ]; then rm -f "$archive"; fi
  for found in "$directory/python/bin/python3" "$directory"/python/*/bin/python3; do
    if [ -x "$found" ] && fit "$found"; then
      python=$found
      return
    fi
  done
  say "the Python of $1 does not run here"
}

here=.
case $0 in */*) here=${0%/*} ;; esac
here=$(cd "$here" && pwd)
umask 077
directory=
for place in . "${TMPDIR:-/tmp}" "${HOME:-/}"; do
  spare=$directory
  own "$place" || continue
  if [ -n "$spare" ]; then rm -rf "$spare"; fi
  if runs; then break; fi
done
if [ -z "$directory" ]; then
  say "there is nowhere to write: neither here, nor in ${TMPDIR:-/tmp}, nor at home"
  exit 21
fi
rm -f "$directory/runs"

cat >"$directory/pilot" <<'@END@' || { say "cannot write $directory/pilot"; exit 21; }
@PILOT@
@END@
chmod 755 "$directory/pilot"

python=
for py in @PYTHONS@; do
  if has "$py" && fit "$py"; then
    python=$py
    break
  fi
done
@UNPACK@
if [ -z "$python" ]; then
  say "no Python 3.6 or newer on this machine, and none to unpack (PATH=$PATH)"
  rm -rf "$directory"
  exit 2
fi
export PILOTAGE_PYTHON="$python" PILOTAGE_CREDENTIALS="${PILOTAGE_CREDENTIALS:-$here/credentials.json}"
exec sh "$directory/pilot" "$@"
