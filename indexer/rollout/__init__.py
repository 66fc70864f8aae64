"""The release procedure: how a collection becomes the live one, and how old collections are dropped."""
