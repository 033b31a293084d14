"""MP4 files as body cameras write them: whole, cut, damaged."""
