"""Users that the service remembers: their histories, and the interest vectors that are computed from the histories."""
