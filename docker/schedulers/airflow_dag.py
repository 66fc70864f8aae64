"""The night shift as a DAG of Airflow 3, in one task: the command itself goes on where a failed try stopped.

/srv/recall has the checkout with .venv, nightly.yaml and recall.env, as for docker/schedulers/recall.cron. A night that
the gate refused (exit code 3) or that was rolled back (4) is over: another try ends at once with the same code.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

COMMAND = """
cd /srv/recall && set -a && . ./recall.env && exec .venv/bin/python -m indexer nightly --config nightly.yaml \
    --date "{{ data_interval_end | ds }}"
"""

with DAG(
    dag_id="recall_nightly",
    schedule="30 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
) as dag:
    BashOperator(
        task_id="nightly",
        bash_command=COMMAND,
        retries=2,
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=12),
    )
