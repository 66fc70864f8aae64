"""The load test `recall-client bench`: what is asked, the two loops, and what is shown of the answers."""
