"""The commands of `recall-client`: their options, the calls that they make, and what they print."""
