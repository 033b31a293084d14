"""One file per kind of hardware; the file's name is the `driver` in the configuration."""
