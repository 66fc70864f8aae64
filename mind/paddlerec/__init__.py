"""Models that PaddleRec trained, turned into artifacts; the command is `mind.import_paddlerec`."""
