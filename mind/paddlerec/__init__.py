"""Turns models that PaddleRec trained into artifacts. The command is `mind.import_paddlerec`."""
