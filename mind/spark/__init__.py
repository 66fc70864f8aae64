"""`mind.prepare --engine spark`: the tasks of a Spark job as functions of Arrow batches, and the job that runs them."""
