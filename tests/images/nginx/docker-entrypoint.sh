#!/bin/sh
# Runs what lies in /docker-entrypoint.d before nginx, and anything else as it is.
set -e

# Options are nginx's.
case ${1-} in -*) set -- nginx "$@" ;; esac

if [ "${1-}" = nginx ]; then
    for file in /docker-entrypoint.d/*; do
        case $file in
            *.envsh)
                # It may leave variables for the next, and for nginx.
                # shellcheck source=/dev/null
                if [ -x "$file" ]; then . "$file"; fi
                ;;
            *.sh) if [ -x "$file" ]; then "$file"; fi ;;
        esac
    done
fi
exec "$@"
