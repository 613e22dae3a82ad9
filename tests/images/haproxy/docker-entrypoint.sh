#!/bin/sh
# Runs haproxy with a master process, which SIGHUP makes read its configuration again; anything else as it is.
set -eu

# Options are haproxy's.
case ${1-} in
    -*) set -- haproxy "$@" ;;
esac
if [ "${1-}" = haproxy ]; then
    shift
    # In the foreground, and without what systemd would want of it.
    set -- haproxy -W -db "$@"
fi
exec "$@"
