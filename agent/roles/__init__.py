"""One file a role; each reads like its own diagram."""
