#!/bin/sh
# Runs node where there are only its options or a script; a program that there is as it is.
set -eu

case ${1-} in
    -*) set -- node "$@" ;;
    *)
        if ! command -v "${1-}" >/dev/null || { [ -f "$1" ] && [ ! -x "$1" ]; }; then
            set -- node "$@"
        fi
        ;;
esac
exec "$@"
