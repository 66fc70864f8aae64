"""Users that the service remembers: their histories, and the interest vectors that follow the histories."""
