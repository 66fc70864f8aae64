"""The items of a collection: their attributes, and changes to them between two builds."""
