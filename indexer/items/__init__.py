"""Items that a collection holds: their attributes, and what is changed between two builds."""
