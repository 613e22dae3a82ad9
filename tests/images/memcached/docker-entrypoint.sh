#!/bin/sh
# Runs memcached where there are only options; anything else as it is.
set -eu

case ${1-} in
    -*) set -- memcached "$@" ;;
esac
exec "$@"
