#!/bin/sh
# Label the log of yesterday (UTC), or of the given date: cron.sh [YYYY-MM-DD]. Retries exit codes that a retry can fix. Exits
# with the last attempt's exit code.
#
#   CRON_TZ=UTC
#   30 1 * * *  intent  /opt/intent/infra/schedulers/cron.sh >> /var/log/intent-nightly.log 2>&1
#
# A cron without CRON_TZ (Debian's) uses the machine's own clock, so set that to UTC. Set BUCKET below. Set the address and
# the token of the cluster in /etc/default/intent.
set -u

PYTHON=${INTENT_PYTHON:-/opt/intent/.venv/bin/python}
SETTINGS=${INTENT_SETTINGS:-/etc/default/intent}
LOCK=${INTENT_LOCK:-/var/lock/intent-nightly.lock}
TRIES=${INTENT_TRIES:-4}
PAUSE=${INTENT_PAUSE:-600}
date=${1:-$(date -u -d yesterday +%F)}

if [ -r "$SETTINGS" ]; then
  set -a
  . "$SETTINGS"
  set +a
fi

# One run at a time: a run that takes longer than a day is not overtaken by the next.
exec 9> "$LOCK"
if ! flock -n 9; then
  echo "run of $date: another run is in progress (it holds $LOCK); run this one by hand once it has ended" >&2
  exit 75
fi

try=1
while :; do
  "$PYTHON" -m jobs.submit nightly "date=$date" engine=auto engine.device=cuda fleet.gptq_actors=8 fleet.gguf_actors=112 \
    'input="s3://BUCKET/log/dt={date}"' 'output="s3://BUCKET/labels/dt={date}"' \
    catalog=s3://BUCKET/products.parquet workspace=s3://BUCKET/intent arrival=_SUCCESS
  code=$?
  case $code in
    1|3|8|130) ;;
    *) break ;;
  esac
  [ "$try" -lt "$TRIES" ] || break
  echo "run of $date: exit code $code; try $((try + 1)) of $TRIES in $PAUSE s" >&2
  sleep "$PAUSE"
  try=$((try + 1))
done
echo "run of $date: exit code $code" >&2
exit "$code"
